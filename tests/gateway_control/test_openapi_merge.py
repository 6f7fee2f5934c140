"""OpenAPI documents of several services in one: names apart, every reference followed, nothing that leads outside."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_gateway.openapi.merge import MESH_SCHEME, merge_fragments
from toska_gateway.openapi.parts import DocumentRefused, as_list, as_mapping
from toska_gateway.openapi.pointers import References
from toska_gateway.openapi.rewrite import rewrite_document

Json = dict[str, Any]
Strategy = st.SearchStrategy[Any]


def document(paths: Json, *, version: str = "3.1.0", extra: Json | None = None, **rest: Any) -> Json:
    info = {"title": "Shop", "version": "1.0"}
    return {"openapi": version, "info": info, "paths": paths, **rest, **(extra or {})}


def answer(schema: Json) -> Json:
    return {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}}


def merge(*given: tuple[str, Json], mesh: tuple[str, ...] = (), open_reads: bool = True) -> Json:
    fragments = [rewrite_document(name, root, lambda _, path, name=name: f"/{name}{path}") for name, root in given]
    merged = merge_fragments(fragments, title="Mesh", version="1", mesh=mesh, open_reads=open_reads)
    return json.loads(json.dumps(merged, allow_nan=False))


def references(node: Any, *, named: bool = False) -> Iterator[str]:
    """Every `$ref`, mapping target and `operationRef`, outside of data; `named`: the keys are names, not keywords."""
    for item in as_list(node):
        yield from references(item)
    for key, value in as_mapping(node).items():
        if not named and key in {"example", "examples", "default", "enum", "const", "x-data"}:
            continue
        if key in {"$ref", "operationRef"} and isinstance(value, str):
            yield value
        elif key == "mapping" and not named:
            yield from as_mapping(value).values()
        else:
            yield from references(value, named=not named and key in {"properties", "patternProperties", "$defs"})


def assert_sound(merged: Json) -> None:
    """Every reference leads somewhere inside, ids are unique, and FastAPI's model of OpenAPI takes it."""
    lookup = References(merged)
    for reference in references(merged):
        pointer = lookup.pointer(reference, "")
        assert pointer is not None, reference
        assert lookup.target(pointer) is not None, reference
    ids = [op["operationId"] for item in merged["paths"].values() for op in item.values() if "operationId" in op]
    assert len(ids) == len(set(ids))
    OpenAPI.model_validate(merged)


PET = {"type": "object", "properties": {"owner": {"$ref": "#/components/schemas/Person"}}}


def test_components_of_the_same_name_in_two_services_stay_apart() -> None:
    shop = document(
        {"/pets": {"get": answer({"$ref": "#/components/schemas/Pet"})}},
        components={"schemas": {"Pet": PET, "Person": {"type": "string"}}},
    )
    clinic = document(
        {"/pets": {"get": answer({"$ref": "#/components/schemas/Pet"})}},
        components={"schemas": {"Pet": {"type": "integer"}}},
    )
    merged = merge(("shop", shop), ("clinic", clinic))
    assert_sound(merged)
    assert merged["components"]["schemas"].keys() == {"shop.Pet", "shop.Person", "clinic.Pet"}
    assert merged["components"]["schemas"]["shop.Pet"]["properties"]["owner"] == {
        "$ref": "#/components/schemas/shop.Person"
    }
    assert merged["components"]["schemas"]["clinic.Pet"] == {"type": "integer"}


def test_operation_ids_and_tags_carry_the_service_s_name() -> None:
    root = document({"/a": {"get": {"operationId": "read", "tags": ["items"], **answer({})}, "post": answer({})}})
    merged = merge(("shop", root), ("clinic", root))
    assert merged["paths"]["/shop/a"]["get"]["operationId"] == "shop_read"
    assert merged["paths"]["/clinic/a"]["get"]["tags"] == ["clinic: items"]
    assert merged["paths"]["/clinic/a"]["post"]["tags"] == ["clinic"]
    assert {tag["name"] for tag in merged["tags"]} == {"shop: items", "shop", "clinic: items", "clinic"}


def test_an_operation_id_that_a_service_gives_twice_is_kept_once() -> None:
    root = document({f"/{name}": {"get": {"operationId": "same", **answer({})}} for name in "ab"})
    merged = merge(("shop", root))
    assert merged["paths"]["/shop/a"]["get"]["operationId"] == "shop_same"
    assert "operationId" not in merged["paths"]["/shop/b"]["get"]


def test_a_single_service_s_document_keeps_its_own_names() -> None:
    root = document(
        {"/a": {"get": {"operationId": "read", "tags": ["items"], **answer({"$ref": "#/components/schemas/A"})}}},
        components={"schemas": {"A": {"type": "string"}}},
    )
    fragment = rewrite_document("shop", root, lambda _, path: f"/shop{path}", apart=False)
    assert fragment.paths["/shop/a"]["get"]["operationId"] == "read"
    assert fragment.paths["/shop/a"]["get"]["tags"] == ["items"]
    assert fragment.components == {"schemas": {"A": {"type": "string"}}}


def test_operations_that_are_not_reached_are_left_out_with_all_that_only_they_used() -> None:
    root = document(
        {
            "/open": {"get": answer({"$ref": "#/components/schemas/Open"})},
            "/closed": {"get": answer({"$ref": "#/components/schemas/Closed"})},
        },
        components={
            "schemas": {"Open": {"$ref": "#/components/schemas/Deep"}, "Deep": {}, "Closed": {"type": "string"}}
        },
    )
    fragment = rewrite_document("shop", root, lambda _, path: path if path == "/open" else None)
    assert fragment.paths.keys() == {"/open"}
    assert fragment.components["schemas"].keys() == {"shop.Open", "shop.Deep"}


def test_references_are_followed_in_every_place() -> None:
    ref = {"$ref": "#/components/schemas/S"}
    kinds = {
        "parameters": {"P": {"name": "p", "in": "query", "schema": ref}},
        "headers": {"H": {"schema": ref}},
        "requestBodies": {"B": {"content": {"application/json": {"schema": ref}}}},
        "examples": {"E": {"value": {"$ref": "#/components/schemas/S"}}},
        "links": {"L": {"operationId": "read"}},
        "callbacks": {"C": {"{$request.body#/url}": {"post": answer(ref)}}},
        "responses": {
            "R": {
                "description": "r",
                "headers": {"x-h": {"$ref": "#/components/headers/H"}},
                "content": {
                    "application/json": {"schema": ref, "examples": {"e": {"$ref": "#/components/examples/E"}}}
                },
                "links": {"next": {"$ref": "#/components/links/L"}, "here": {"operationRef": "#/paths/~1a~1{id}/get"}},
            }
        },
        "schemas": {
            "S": {
                "type": "object",
                "properties": {"$ref": {"type": "string"}, "discriminator": ref, "example": ref, "properties": ref},
                "patternProperties": {"^x": ref},
                "additionalProperties": ref,
                "items": ref,
                "prefixItems": [ref],
                "allOf": [ref],
                "not": ref,
                "if": ref,
                "then": ref,
                "else": ref,
                "dependentSchemas": {"a": ref},
                "propertyNames": ref,
                "contains": ref,
                "$defs": {"D": ref},
                "unevaluatedProperties": ref,
                "contentSchema": ref,
                "default": {"$ref": "#/components/schemas/S"},
                "enum": [{"$ref": "#/components/schemas/S"}],
                "example": {"$ref": "#/components/schemas/S"},
                "x-data": {"$ref": "#/components/schemas/S"},
            },
            "T": {"$ref": "#/components/schemas/S/$defs/D", "description": "beside"},
        },
    }
    root = document(
        {
            "/a/{id}": {
                "parameters": [{"$ref": "#/components/parameters/P"}],
                "get": {
                    "operationId": "read",
                    "requestBody": {"$ref": "#/components/requestBodies/B"},
                    "responses": {"200": {"$ref": "#/components/responses/R"}, "201": answer(
                        {"$ref": "#/components/schemas/T"})["responses"]["200"]},
                    "callbacks": {"done": {"$ref": "#/components/callbacks/C"}},
                },
            }
        },
        components=kinds,
    )  # fmt: skip
    merged = merge(("shop", root))
    assert_sound(merged)
    text = json.dumps(merged)
    # Only data still says what it said: the example's value, default, enum, example and the extension.
    assert text.count('"#/components/schemas/S"') == 5
    new = merged["components"]
    assert {section: [*names] for section, names in new.items()} == {
        section: [f"shop.{name}" for name in names] for section, names in kinds.items()
    }
    assert new["schemas"]["shop.T"] == {"$ref": "#/components/schemas/shop.S/$defs/D", "description": "beside"}
    assert new["schemas"]["shop.S"]["properties"]["discriminator"] == {"$ref": "#/components/schemas/shop.S"}
    assert new["schemas"]["shop.S"]["properties"]["$ref"] == {"type": "string"}
    links = new["responses"]["shop.R"]["links"]
    assert links == {
        "next": {"$ref": "#/components/links/shop.L"},
        "here": {"operationRef": "#/paths/~1shop~1a~1{id}/get"},
    }
    assert new["links"]["shop.L"] == {"operationId": "shop_read"}
    operation = merged["paths"]["/shop/a/{id}"]["get"]
    assert operation["parameters"] == [{"$ref": "#/components/parameters/shop.P"}]


def test_parameters_of_a_path_move_into_its_operations_which_may_replace_them() -> None:
    common = [{"name": "id", "in": "path", "required": True}, {"name": "v", "in": "query"}]
    root = document(
        {"/a/{id}": {"parameters": common, "get": {"parameters": [{"name": "v", "in": "query", "x": 1}], **answer({})}}}
    )
    item = merge(("shop", root))["paths"]["/shop/a/{id}"]
    assert item.keys() == {"get"}
    assert item["get"]["parameters"] == [common[0], {"name": "v", "in": "query", "x": 1}]


def test_a_discriminator_s_mapping_follows_its_schemas_by_name_and_by_reference() -> None:
    pet = {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
        "discriminator": {
            "propertyName": "kind",
            "mapping": {"cat": "Cat", "dog": "#/components/schemas/Dog", "gone": "#/components/schemas/Gone"},
        },
    }
    root = document(
        {"/a": {"get": answer({"$ref": "#/components/schemas/Pet"})}},
        components={"schemas": {"Pet": pet, "Cat": {}, "Dog": {}}},
    )
    merged = merge(("shop", root))
    assert_sound(merged)
    assert merged["components"]["schemas"]["shop.Pet"]["discriminator"] == {
        "propertyName": "kind",
        "mapping": {"cat": "#/components/schemas/shop.Cat", "dog": "#/components/schemas/shop.Dog"},
    }


def test_a_discriminator_without_a_mapping_gets_one_since_its_values_were_component_names() -> None:
    alternatives = {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"type": "string"}],
        "discriminator": {"propertyName": "kind"},
    }
    base = {"type": "object", "discriminator": {"propertyName": "kind"}}
    root = document(
        {
            "/a": {
                "get": answer({"$ref": "#/components/schemas/Any"}),
                "post": answer({"$ref": "#/components/schemas/B"}),
            }
        },
        components={
            "schemas": {
                "Any": alternatives,
                "Cat": {},
                "B": base,
                "Child": {"allOf": [{"$ref": "#/components/schemas/B"}, {"type": "object"}]},
            }
        },
    )
    schemas = merge(("shop", root))["components"]["schemas"]
    assert schemas["shop.Any"]["discriminator"]["mapping"] == {"Cat": "#/components/schemas/shop.Cat"}
    assert schemas["shop.B"]["discriminator"]["mapping"] == {"Child": "#/components/schemas/shop.Child"}
    assert schemas["shop.Child"]["allOf"][0] == {"$ref": "#/components/schemas/shop.B"}


def test_a_schema_of_3_0_is_written_in_the_words_of_3_1() -> None:
    properties = {
        "name": {"type": "string", "nullable": True, "enum": ["a", "b"]},
        "plain": {"type": "string", "nullable": False},
        "above": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        "below": {"type": "integer", "maximum": 9, "exclusiveMaximum": False},
        "pet": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Pet"}]},
        "either": {"nullable": True, "anyOf": [{"type": "string"}]},
        "alone": {"$ref": "#/components/schemas/Pet", "description": "ignored by 3.0"},
    }
    root = document(
        {"/a": {"get": answer({"type": "object", "properties": properties})}},
        version="3.0.3",
        components={"schemas": {"Pet": {}}},
    )
    merged = merge(("shop", root))
    assert_sound(merged)
    content = merged["paths"]["/shop/a"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["properties"] == {
        "name": {"type": ["string", "null"], "enum": ["a", "b", None]},
        "plain": {"type": "string"},
        "above": {"type": "integer", "exclusiveMinimum": 0},
        "below": {"type": "integer", "maximum": 9},
        "pet": {"anyOf": [{"allOf": [{"$ref": "#/components/schemas/shop.Pet"}]}, {"type": "null"}]},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "alone": {"$ref": "#/components/schemas/shop.Pet"},
    }


@pytest.mark.parametrize(
    "reference",
    [
        "https://evil.example/schema.json",
        "//evil.example/x",
        "other.yaml#/Pet",
        "#/components/schemas/Gone",
        "#/nowhere",
        "#",
        "",
        "#gone",
        "#/components/headers/Other",
        "#/components/headers/Other/schema/x-data",
    ],
)
def test_a_reference_that_leads_out_or_nowhere_is_dropped(reference: str) -> None:
    root = document(
        {
            "/a": {
                "parameters": [{"$ref": reference}],
                "get": answer({"type": "object", "properties": {"p": {"$ref": reference}}}),
            }
        },
        components={"headers": {"Other": {"schema": {"type": "string", "x-data": {}}}}},
    )
    merged = merge(("shop", root))
    assert_sound(merged)
    assert "evil" not in json.dumps(merged)
    operation = merged["paths"]["/shop/a"]["get"]
    assert list(references(merged)) == []
    assert not operation.get("parameters")
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert "p" in schema["properties"]


def test_a_reference_below_a_path_is_copied_since_its_place_does_not_survive() -> None:
    schema = {"type": "object", "properties": {"self": {"$ref": "#/paths/~1a/get/responses/200"}}}
    root = document(
        {
            "/a": {"get": answer(schema)},
            "/b": {"get": {"responses": {"200": {"$ref": "#/paths/~1a/get/responses/200"}}}},
            "/c": {"$ref": "#/paths/~1b"},
        }
    )
    merged = merge(("shop", root))
    assert_sound(merged)
    assert merged["paths"]["/shop/b"]["get"]["responses"]["200"]["description"] == "ok"
    assert merged["paths"]["/shop/c"]["get"]["responses"]["200"]["description"] == "ok"


def test_anchors_and_ids_of_json_schema_become_plain_pointers() -> None:
    schemas = {
        "Tree": {"$id": "https://shop.example/tree", "$anchor": "tree", "properties": {
            "left": {"$ref": "#tree"}, "right": {"$ref": "https://shop.example/tree"},
            "leaf": {"$ref": "#/$defs/leaf"}},
            "$defs": {"leaf": {"type": "string"}}},
        "Node": {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}},
    }  # fmt: skip
    root = document(
        {"/a": {"get": answer({"$ref": "#tree"}), "post": answer({"$ref": "#/components/schemas/Node"})}},
        components={"schemas": schemas},
    )
    merged = merge(("shop", root))
    assert_sound(merged)
    tree = merged["components"]["schemas"]["shop.Tree"]
    assert tree["properties"] == {
        "left": {"$ref": "#/components/schemas/shop.Tree"},
        "right": {"$ref": "#/components/schemas/shop.Tree"},
        "leaf": {"$ref": "#/components/schemas/shop.Tree/$defs/leaf"},
    }
    assert merged["components"]["schemas"]["shop.Node"] == {"items": {"$ref": "#/components/schemas/shop.Node"}}


def test_names_that_openapi_does_not_allow_are_made_fit_and_stay_unique() -> None:
    schemas = {"Page[Item]": {"type": "string"}, "Page_Item_": {"type": "integer"}, "a/b~c": {}, "a%20b": {}}
    paths = {
        "/1": {"get": answer({"$ref": "#/components/schemas/Page[Item]"})},
        "/2": {"get": answer({"$ref": "#/components/schemas/Page_Item_"})},
        "/3": {"get": answer({"$ref": "#/components/schemas/a~1b~0c"})},
        "/4": {"get": answer({"$ref": "#/components/schemas/a%2520b"})},
    }
    merged = merge(("shop", document(paths, components={"schemas": schemas})))
    assert_sound(merged)
    assert sorted(merged["components"]["schemas"]) == [
        "shop.Page_Item_", "shop.Page_Item__2", "shop.a_20b", "shop.a_b_c",
    ]  # fmt: skip


def test_servers_are_dropped_since_they_lead_around_the_gateway() -> None:
    servers = [{"url": "https://shop.example"}]
    root = document({"/a": {"servers": servers, "get": {"servers": servers, **answer({})}}}, servers=servers)
    merged = merge(("shop", root))
    assert "shop.example" not in json.dumps(merged)
    assert merged["servers"][0]["url"] == "/"


def test_requirements_for_all_operations_become_those_of_each_under_the_new_names() -> None:
    schemes = {
        "Key": {"type": "apiKey", "in": "header", "name": "x-key"},
        "Unused": {"type": "http", "scheme": "basic"},
    }
    root = document(
        {
            "/a": {
                "get": answer({}),
                "post": {"security": [], **answer({})},
                "put": {"security": [{"Nil": []}], **answer({})},
            }
        },
        security=[{"Key": []}],
        components={"securitySchemes": schemes},
    )
    merged = merge(("shop", root))
    operations = merged["paths"]["/shop/a"]
    assert operations["get"]["security"] == [{"shop.Key": []}]
    assert operations["post"]["security"] == []
    assert "security" not in operations["put"]
    assert merged["components"]["securitySchemes"].keys() == {"shop.Key"}


def test_the_mesh_s_scheme_stands_on_the_mesh_s_own_operations_only() -> None:
    bearer = {"type": "http", "scheme": "bearer"}
    own: Json = {"security": [{MESH_SCHEME: []}], **answer({})}
    root = document({"/a": {"get": own, "post": own}}, components={"securitySchemes": {MESH_SCHEME: bearer}})
    merged = merge(("shop", root), ("toska-router", root), mesh=("toska-router",))
    assert_sound(merged)
    assert merged["paths"]["/shop/a"]["post"]["security"] == [{f"shop.{MESH_SCHEME}": []}]
    assert merged["paths"]["/toska-router/a"]["post"]["security"] == [{MESH_SCHEME: []}]
    assert "security" not in merged["paths"]["/toska-router/a"]["get"]
    closed = merge(("toska-router", root), mesh=("toska-router",), open_reads=False)
    assert closed["paths"]["/toska-router/a"]["get"]["security"] == [{MESH_SCHEME: []}]
    assert merged["components"]["securitySchemes"].keys() == {f"shop.{MESH_SCHEME}", MESH_SCHEME}
    without = merge(("shop", root), mesh=("toska-router",))
    assert MESH_SCHEME not in without["components"]["securitySchemes"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"swagger": "2.0", "paths": {}}, "something else than OpenAPI"),
        ({"openapi": "4.0.0"}, "OpenAPI 4.0.0"),
        ([], "something else"),
        ("text", "something else"),
        (None, "something else"),
    ],
)
def test_what_is_no_openapi_3_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(DocumentRefused, match=reason):
        rewrite_document("shop", given, lambda _, path: path)


def test_a_document_nested_beyond_measure_is_refused() -> None:
    schema: Json = {}
    for _ in range(200):
        schema = {"items": schema}
    with pytest.raises(DocumentRefused, match="deep"):
        rewrite_document("shop", document({"/a": {"get": answer(schema)}}), lambda _, path: path)


def test_a_document_whose_copies_multiply_is_refused() -> None:
    defs: Json = {f"d{n}": {"allOf": [{"$ref": f"#/x-defs/d{n + 1}"}] * 10} for n in range(9)}
    root = document({"/a": {"get": answer({"$ref": "#/x-defs/d0"})}}, extra={"x-defs": {**defs, "d9": {}}})
    with pytest.raises(DocumentRefused, match="parts"):
        rewrite_document("shop", root, lambda _, path: path)


NAMES: Strategy = st.sampled_from(["A", "B", "a b", "x/y", "Page[Item]"])
PLACES = ["A", "B", "a%20b", "x~1y", "Page[Item]"]
SECTIONS = ["schemas", "responses", "parameters", "nonsense"]
REFERENCES: Strategy = st.sampled_from(
    [
        *(f"#/components/{section}/{place}" for section in SECTIONS for place in PLACES),
        *("#", "#/", "#/paths/~1a/get", "#/paths/~1a/get/responses/200", "https://x.example/#/a", "#anchor"),
    ]
)
REFERENCE: Strategy = st.fixed_dictionaries({"$ref": REFERENCES})
JUNK: Strategy = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
DISCRIMINATOR = st.just({"propertyName": "k", "mapping": {"a": "A", "b": "#/x"}})


def schemas_of(inner: Strategy) -> Strategy:
    return st.one_of(
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"properties": st.fixed_dictionaries({"$ref": inner, "example": inner})}),
        st.fixed_dictionaries({"oneOf": st.lists(inner, max_size=3), "discriminator": DISCRIMINATOR}),
        st.fixed_dictionaries({"$ref": REFERENCES, "not": inner, "$anchor": st.just("anchor")}),
    )


SCHEMAS: Strategy = st.recursive(
    st.one_of(REFERENCE, st.just({"type": "string", "nullable": True}), st.booleans()), schemas_of, max_leaves=6
)
CONTENT: Strategy = st.fixed_dictionaries({"application/json": st.fixed_dictionaries({"schema": SCHEMAS})})
RESPONSES: Strategy = st.one_of(REFERENCE, st.fixed_dictionaries({"description": st.just(""), "content": CONTENT}))
OPERATIONS: Strategy = st.fixed_dictionaries(
    {"responses": st.dictionaries(st.sampled_from(["200", "404"]), RESPONSES, min_size=1)},
    optional={"operationId": st.sampled_from(["one", "two"]), "tags": st.lists(st.text(max_size=4), max_size=2)},
)
ITEMS: Strategy = st.dictionaries(st.sampled_from(["get", "post", "delete"]), OPERATIONS, max_size=2)
COMPONENTS: Strategy = st.fixed_dictionaries(
    {
        "schemas": st.dictionaries(NAMES, SCHEMAS, max_size=4),
        "responses": st.dictionaries(NAMES, RESPONSES, max_size=2),
    }
)
DOCUMENTS: Strategy = st.fixed_dictionaries(
    {
        "openapi": st.sampled_from(["3.0.0", "3.0.4", "3.1.0", "3.1.1"]),
        "info": st.just({"title": "T", "version": "1"}),
        "paths": st.dictionaries(st.sampled_from(["/a", "/b/{id}", "/a b"]), ITEMS, max_size=3),
        "components": COMPONENTS,
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DOCUMENTS, DOCUMENTS)
def test_any_two_documents_make_a_sound_one(first: Json, second: Json) -> None:
    assert_sound(merge(("shop", first), ("clinic", second)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["openapi", "info", "paths", "components", "tags", "security"]), JUNK))
def test_whatever_a_service_serves_is_merged_or_refused(given_document: Json) -> None:
    try:
        merged = merge(("shop", {**given_document, "openapi": "3.1.0"}))
    except DocumentRefused:
        return
    assert merged["openapi"] == "3.1.0"

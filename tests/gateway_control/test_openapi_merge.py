"""OpenAPI documents of several services in one: names apart, every reference followed, nothing that leads outside."""

import json
from typing import Any

import pytest
from toska_gateway.openapi.merge import MESH_SCHEME
from toska_gateway.openapi.parts import DocumentRefused
from toska_gateway.openapi.rewrite import rewrite_document
from toska_tests.openapi_documents import Json, answer, assert_sound, document, merge

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


def test_parameters_of_a_path_move_into_its_operations_which_may_replace_them() -> None:
    common = [{"name": "id", "in": "path", "required": True}, {"name": "v", "in": "query"}]
    root = document(
        {"/a/{id}": {"parameters": common, "get": {"parameters": [{"name": "v", "in": "query", "x": 1}], **answer({})}}}
    )
    item = merge(("shop", root))["paths"]["/shop/a/{id}"]
    assert item.keys() == {"get"}
    assert item["get"]["parameters"] == [common[0], {"name": "v", "in": "query", "x": 1}]


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

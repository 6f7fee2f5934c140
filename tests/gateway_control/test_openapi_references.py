"""References of OpenAPI documents that are merged: all followed, and none that leads outside."""

import json

import pytest
from toska_tests.openapi_documents import answer, assert_sound, document, merge, references

REF = {"$ref": "#/components/schemas/S"}
KINDS = {
    "parameters": {"P": {"name": "p", "in": "query", "schema": REF}},
    "headers": {"H": {"schema": REF}},
    "requestBodies": {"B": {"content": {"application/json": {"schema": REF}}}},
    "examples": {"E": {"value": {"$ref": "#/components/schemas/S"}}},
    "links": {"L": {"operationId": "read"}},
    "callbacks": {"C": {"{$request.body#/url}": {"post": answer(REF)}}},
    "responses": {
        "R": {
            "description": "r",
            "headers": {"x-h": {"$ref": "#/components/headers/H"}},
            "content": {"application/json": {"schema": REF, "examples": {"e": {"$ref": "#/components/examples/E"}}}},
            "links": {"next": {"$ref": "#/components/links/L"}, "here": {"operationRef": "#/paths/~1a~1{id}/get"}},
        }
    },
    "schemas": {
        "S": {
            "type": "object",
            "properties": {"$ref": {"type": "string"}, "discriminator": REF, "example": REF, "properties": REF},
            "patternProperties": {"^x": REF},
            "additionalProperties": REF,
            "items": REF,
            "prefixItems": [REF],
            "allOf": [REF],
            "not": REF,
            "if": REF,
            "then": REF,
            "else": REF,
            "dependentSchemas": {"a": REF},
            "propertyNames": REF,
            "contains": REF,
            "$defs": {"D": REF},
            "unevaluatedProperties": REF,
            "contentSchema": REF,
            "default": {"$ref": "#/components/schemas/S"},
            "enum": [{"$ref": "#/components/schemas/S"}],
            "example": {"$ref": "#/components/schemas/S"},
            "x-data": {"$ref": "#/components/schemas/S"},
        },
        "T": {"$ref": "#/components/schemas/S/$defs/D", "description": "beside"},
    },
}
"""A component of every kind, with a reference in every place that may have one, and in data, which has none."""
EVERYWHERE = document(
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
    components=KINDS,
)  # fmt: skip


def test_references_are_followed_in_every_place() -> None:
    merged = merge(("shop", EVERYWHERE))
    assert_sound(merged)
    text = json.dumps(merged)
    # Only data still says what it said: the example's value, default, enum, example and the extension.
    assert text.count('"#/components/schemas/S"') == 5
    new = merged["components"]
    assert {section: [*names] for section, names in new.items()} == {
        section: [f"shop.{name}" for name in names] for section, names in KINDS.items()
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

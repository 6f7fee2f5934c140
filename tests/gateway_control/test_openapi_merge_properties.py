"""Whatever two documents say: merging them makes a sound one, or refuses them."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from toska_gateway.openapi.parts import DocumentRefused
from toska_tests.openapi_documents import Json, assert_sound, merge

Strategy = st.SearchStrategy[Any]
PLACES = ["A", "B", "a%20b", "x~1y", "Page[Item]"]
NAMES: Strategy = st.sampled_from(["A", "B", "a b", "x/y", "Page[Item]"])
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

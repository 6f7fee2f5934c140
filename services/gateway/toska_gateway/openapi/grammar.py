"""Where in an OpenAPI document what stands: needed to tell a reference from data that merely looks like one.

`{"$ref": "#/components/schemas/Pet"}` is a reference as a schema, and plain data as an example; `discriminator` is a
keyword in a schema, and a property's name below `properties`. So a document is walked by what each part is.
Source: OpenAPI 3.0.4 and 3.1.1, and the applicators of JSON Schema 2020-12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "callback",
    "encoding",
    "example",
    "header",
    "link",
    "media_type",
    "operation",
    "parameter",
    "path_item",
    "request_body",
    "response",
    "schema",
    "security_scheme",
]


@dataclass(frozen=True, slots=True)
class Field:
    """What a field holds: one part of a kind, a list of them, or a map from names to them."""

    kind: Kind
    container: Literal["one", "list", "map"] = "one"


CALLBACK: Final = Field("path_item")
"""Every field of a callback is an expression with a path item."""

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

SECTIONS: Final[dict[str, Kind]] = {
    "schemas": "schema",
    "responses": "response",
    "parameters": "parameter",
    "examples": "example",
    "requestBodies": "request_body",
    "headers": "header",
    "securitySchemes": "security_scheme",
    "links": "link",
    "callbacks": "callback",
    "pathItems": "path_item",
}
"""The sections of `components`, and what each holds."""

_CONTENT = Field("media_type", "map")
_PARAMETER = {"schema": Field("schema"), "content": _CONTENT, "examples": Field("example", "map")}

FIELDS: Final[dict[Kind, dict[str, Field]]] = {
    "callback": {},
    "encoding": {"headers": Field("header", "map")},
    "example": {},
    "header": _PARAMETER,
    "link": {},
    "media_type": {
        "schema": Field("schema"),
        "examples": Field("example", "map"),
        "encoding": Field("encoding", "map"),
    },
    "operation": {
        "parameters": Field("parameter", "list"),
        "requestBody": Field("request_body"),
        "responses": Field("response", "map"),
        "callbacks": Field("callback", "map"),
    },
    "parameter": _PARAMETER,
    "path_item": {
        **{method: Field("operation") for method in METHODS},
        "parameters": Field("parameter", "list"),
    },
    "request_body": {"content": _CONTENT},
    "response": {"headers": Field("header", "map"), "content": _CONTENT, "links": Field("link", "map")},
    "schema": {
        **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), Field("schema", "list")),
        **dict.fromkeys(
            ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"), Field("schema", "map")
        ),
        **dict.fromkeys(
            (
                "items",
                "additionalProperties",
                "unevaluatedItems",
                "unevaluatedProperties",
                "contains",
                "propertyNames",
                "contentSchema",
                "not",
                "if",
                "then",
                "else",
            ),
            Field("schema"),
        ),
    },
    "security_scheme": {},
}
"""The fields that hold further parts; every other field is data and is taken over as it is."""

ROOTS: Final = frozenset({"openapi", "info", "servers", "paths", "webhooks", "components", "security", "tags"})
"""Fields of the document itself; whatever else stands there is somebody's own, and of no known kind."""


def find_kind(tokens: Sequence[str]) -> Kind | None:
    """What stands at a JSON pointer, by the grammar alone; `None` if that is data, or nothing that is known."""
    if len(tokens) >= 3 and tokens[0] == "components" and tokens[1] in SECTIONS:
        kind, rest = SECTIONS[tokens[1]], tokens[3:]
    elif len(tokens) >= 2 and tokens[0] == "paths":
        kind, rest = "path_item", tokens[2:]
    else:
        return None
    while rest:
        known = CALLBACK if kind == "callback" else FIELDS[kind].get(rest[0])
        taken = 1 if known is not None and known.container == "one" else 2
        if known is None or len(rest) < taken:
            return None
        kind, rest = known.kind, rest[taken:]
    return kind

"""Schemas of OpenAPI 3.0 in the words of 3.1, which are those of JSON Schema 2020-12."""

from typing import Any, cast


def modernise(schema: dict[str, Any]) -> None:
    """Change one schema in place; those below it are not touched."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        flag = schema.get(exclusive)
        if isinstance(flag, bool):
            del schema[exclusive]
            if flag and bound in schema:
                schema[exclusive] = schema.pop(bound)
    if schema.pop("nullable", False) is True:
        _allow_null(schema)


def _allow_null(schema: dict[str, Any]) -> None:
    given = schema.get("type")
    if isinstance(given, str):
        schema["type"] = [given, "null"]
        values = schema.get("enum")
        if isinstance(values, list) and None not in values:
            schema["enum"] = [*cast("list[Any]", values), None]
        return
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            schema[key] = [*schema[key], {"type": "null"}]
            return
    # Without a type `nullable` means nothing by the letter of 3.0.3, but beside allOf it is how people write it.
    if isinstance(schema.get("allOf"), list):
        schema["anyOf"] = [{"allOf": schema.pop("allOf")}, {"type": "null"}]

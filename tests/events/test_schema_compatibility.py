"""Which schema may follow which: judged on schemas as pydantic writes them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model
from toska_common.events.compatibility import Compatibility, find_incompatibilities, unreadable


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class More(StrEnum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


class Node(BaseModel):
    name: str
    children: list["Node"] = []


class Longer(BaseModel):
    name: str
    size: int = 0
    children: list["Longer"] = []


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


def schema_of(**fields: Any) -> Mapping[str, Any]:
    return create_model("Order", **fields).model_json_schema()


BASE = {"id": (str, ...), "total": (float, ...)}


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (BASE, BASE),
        ({**BASE, "note": (str, ...)}, BASE),  # readers ignore what they do not know
        (BASE, {**BASE, "note": (str, "")}),
        (BASE, {**BASE, "note": (str | None, None)}),
        ({**BASE, "note": (str, ...)}, {**BASE, "note": (str | None, None)}),
        ({"total": (int, ...)}, {"total": (float, ...)}),
        ({"color": (Color, ...)}, {"color": (More, ...)}),
        ({"color": (Literal["red"], ...)}, {"color": (Color, ...)}),
        ({"color": (Color, ...)}, {"color": (str, ...)}),
        ({"n": (Annotated[int, Field(ge=1, le=5)], ...)}, {"n": (Annotated[int, Field(gt=0, lt=6)], ...)}),
        ({"n": (Annotated[int, Field(gt=0)], ...)}, {"n": (Annotated[int, Field(ge=0)], ...)}),
        ({"s": (Annotated[str, Field(max_length=5)], ...)}, {"s": (Annotated[str, Field(max_length=9)], ...)}),
        ({"s": (Annotated[str, Field(pattern="a+")], ...)}, {"s": (Annotated[str, Field(pattern="a+")], ...)}),
        ({"items": (list[int], ...)}, {"items": (list[int | str], ...)}),
        ({"pair": (tuple[int, str], ...)}, {"pair": (tuple[int, str], ...)}),
        ({"tags": (set[str], ...)}, {"tags": (list[str], ...)}),
        ({"labels": (dict[str, int], ...)}, {"labels": (dict[str, float], ...)}),
        ({"labels": (dict[str, int], ...)}, {"labels": (dict[str, Any], ...)}),
        ({"tree": (Node, ...)}, {"tree": (Longer, ...)}),
        ({"tree": (Longer, ...)}, {"tree": (Node, ...)}),
        ({"by": (Cash, ...)}, {"by": (Annotated[Card | Cash, Field(discriminator="kind")], ...)}),
        ({"any": (str, ...)}, {"any": (Any, ...)}),
        ({"flag": (bool, ...)}, {"flag": (bool | None, ...)}),
    ],
)
def test_what_may_be_read(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> None:
    assert unreadable(schema_of(**writer), schema_of(**reader)) == []


@pytest.mark.parametrize(
    ("writer", "reader", "problem"),
    [
        (BASE, {**BASE, "note": (str, ...)}, "$.note: is required, and not always written"),
        ({"note": (str | None, None)}, {"note": (str, ...)}, "$.note: is required, and not always written"),
        ({"note": (str | None, ...)}, {"note": (str, ...)}, "$.note: may be None, where string is wanted"),
        ({"total": (float, ...)}, {"total": (int, ...)}, "$.total: may be number, where integer is wanted"),
        ({"total": (str, ...)}, {"total": (int, ...)}, "$.total: may be string, where integer is wanted"),
        ({"color": (More, ...)}, {"color": (Color, ...)}, "$.color: may be 'green', which is not taken"),
        ({"color": (str, ...)}, {"color": (Color, ...)}, "$.color: may be string, where only 'red', 'blue' is taken"),
        ({"n": (int, ...)}, {"n": (Annotated[int, Field(ge=1)], ...)}, "$.n: minimum is 1, and less may be written"),
        (
            {"n": (Annotated[int, Field(ge=0)], ...)},
            {"n": (Annotated[int, Field(gt=0)], ...)},
            "$.n: exclusiveMinimum is 0, and less may be written",
        ),
        (
            {"s": (Annotated[str, Field(max_length=9)], ...)},
            {"s": (Annotated[str, Field(max_length=5)], ...)},
            "$.s: maxLength is 5, and more may be written",
        ),
        (
            {"s": (Annotated[str, Field(pattern="a+")], ...)},
            {"s": (Annotated[str, Field(pattern="b+")], ...)},
            "$.s: pattern must be 'b+'",
        ),
        ({"items": (list[str], ...)}, {"items": (list[int], ...)}, "$.items[]: may be string, where integer is wanted"),
        (
            {"items": (list[Any], ...)},
            {"items": (list[int], ...)},
            "$.items[]: may be anything, where integer is wanted",
        ),
        ({"tags": (list[str], ...)}, {"tags": (set[str], ...)}, "$.tags: items may repeat, and may not"),
        (
            {"pair": (tuple[int, str], ...)},
            {"pair": (tuple[int, int], ...)},
            "$.pair[1]: may be string, where integer is wanted",
        ),
        (
            {"labels": (dict[str, str], ...)},
            {"labels": (dict[str, int], ...)},
            "$.labels.*: may be string, where integer is wanted",
        ),
        (
            {"by": (Annotated[Card | Cash, Field(discriminator="kind")], ...)},
            {"by": (Cash, ...)},
            "$.by.kind: may be 'card', which is not taken",
        ),
        ({"any": (Any, ...)}, {"any": (int, ...)}, "$.any: may be anything, where integer is wanted"),
    ],
)
def test_what_may_not_and_why(writer: Mapping[str, Any], reader: Mapping[str, Any], problem: str) -> None:
    assert problem in unreadable(schema_of(**writer), schema_of(**reader))


def test_a_closed_reader_takes_no_further_properties() -> None:
    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        id: str

    written = schema_of(id=(str, ...), note=(str, ""))
    assert unreadable(written, Closed.model_json_schema()) == [
        "$.note: is written, and no further properties are taken"
    ]


def test_each_mode_asks_for_its_own_direction() -> None:
    old, new = schema_of(**BASE), schema_of(**BASE, note=(str, ...))
    assert find_incompatibilities(old, new, Compatibility.NONE) == []
    assert find_incompatibilities(old, new, Compatibility.FORWARD) == []
    (problem,) = find_incompatibilities(old, new, Compatibility.BACKWARD)
    assert problem == "$.note: is required, and not always written (the new schema cannot read old data)"
    assert find_incompatibilities(old, new, Compatibility.FULL) == [problem]
    assert find_incompatibilities(new, old, Compatibility.FULL) != []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://elsewhere.example/schema"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"not": {"type": "string"}},
        {"type": "object", "patternProperties": {"a": {"type": "string"}}},
    ],
)
def test_what_cannot_be_decided_is_incompatible_and_ends(schema: Mapping[str, Any]) -> None:
    assert unreadable({"type": "object"}, schema)


def test_problems_are_bounded() -> None:
    wide = {f"f{number}": (str, ...) for number in range(500)}
    assert len(find_incompatibilities(schema_of(id=(str, ...)), schema_of(**wide), Compatibility.BACKWARD)) == 50

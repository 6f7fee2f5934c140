"""Which versions of a topic's schema are taken."""

from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model
from toska_common.contracts.event_schemas import SchemaProposal, TopicSchema
from toska_common.events.compatibility import Compatibility
from toska_common.events.errors import EventRefused
from toska_events.schemas.judging import MAX_BYTES, Who, judge

WHO = Who("orders", datetime(2026, 1, 1, tzinfo=UTC))
ID: dict[str, Any] = {"id": (str, ...)}
OPTIONAL: dict[str, Any] = {**ID, "note": (str, "")}
REQUIRED: dict[str, Any] = {**ID, "note": (str, ...)}


def proposal(version: int, fields: dict[str, Any], **more: Any) -> SchemaProposal:
    model: type[BaseModel] = create_model("Order", **fields)
    return SchemaProposal.model_validate({"version": version, "schema": model.model_json_schema(), **more})


def taken(*proposals: SchemaProposal, mode: Compatibility | None = None) -> TopicSchema:
    known: TopicSchema | None = None
    for item in proposals:
        first = item.model_copy(update={"compatibility": mode}) if mode and known is None else item
        known = judge("orders.order.placed", known, first, WHO)
    assert known is not None
    return known


def test_the_first_version_is_taken_and_sets_the_mode() -> None:
    known = taken(proposal(1, ID))
    assert (known.compatibility, known.newest.version, known.newest.service) == (Compatibility.BACKWARD, 1, "orders")
    assert taken(proposal(3, ID), mode=Compatibility.FULL).compatibility is Compatibility.FULL


def test_what_was_taken_is_taken_again_and_never_changed() -> None:
    known = taken(proposal(1, ID))
    assert judge("orders.order.placed", known, proposal(1, ID), WHO) is known
    with pytest.raises(EventRefused, match="new number"):
        judge("orders.order.placed", known, proposal(1, OPTIONAL), WHO)


def test_what_is_said_for_people_may_change_and_nothing_else() -> None:
    class Order(BaseModel):
        """As it was."""

        title: str = Field(description="Its title")
        kind: Literal["a", "b"] = "a"
        lines: list[int]

    def proposed(**changed: Any) -> SchemaProposal:
        return SchemaProposal.model_validate({"version": 1, "schema": {**Order.model_json_schema(), **changed}})

    known = judge("orders.order.placed", None, proposed(), WHO)
    schema = Order.model_json_schema()
    said = {
        **schema["properties"],
        "title": {"type": "string", "title": "Other", "description": "Said better", "examples": ["x"]},
        "kind": {**schema["properties"]["kind"], "enum": ["b", "a"]},
    }
    for same in (
        proposed(description="Said better", title="Bestellung"),
        proposed(properties=said, required=["lines", "title"]),
    ):
        assert judge("orders.order.placed", known, same, WHO) is known
    properties = schema["properties"]
    for other in (
        proposed(properties={name: properties[name] for name in ("kind", "lines")}),
        proposed(properties={**properties, "kind": {**properties["kind"], "default": "b"}}),
        proposed(properties={**properties, "lines": {"type": "array", "items": {"type": "string"}}}),
    ):
        with pytest.raises(EventRefused, match="another schema by orders; give the new one a new number"):
            judge("orders.order.placed", known, other, WHO)


def test_an_incompatible_version_is_refused_with_the_place() -> None:
    with pytest.raises(EventRefused, match=r"version 2 of orders\.order\.placed is not taken") as refused:
        taken(proposal(1, ID), proposal(2, REQUIRED))
    (problem,) = refused.value.extensions["problems"]
    assert problem["field"] == "body.schema"
    assert problem["reason"].startswith("version 1: $.note: is required")
    assert taken(proposal(1, ID), proposal(2, OPTIONAL)).newest.version == 2
    assert taken(proposal(1, ID), proposal(2, REQUIRED), mode=Compatibility.FORWARD).newest.version == 2
    assert taken(proposal(1, ID), proposal(2, {"x": (int, ...)}), mode=Compatibility.NONE).newest.version == 2


def test_code_that_reads_older_versions_stands_in_for_compatibility_backwards() -> None:
    known = taken(proposal(1, ID), proposal(2, REQUIRED, upcasts_from=[1]))
    assert [item.version for item in known.versions] == [1, 2]
    with pytest.raises(EventRefused, match="old schema cannot read new"):
        taken(proposal(1, REQUIRED), proposal(2, ID, upcasts_from=[1]), mode=Compatibility.FULL)


def test_a_version_in_between_must_fit_both_its_neighbours() -> None:
    ends = (proposal(1, ID), proposal(3, OPTIONAL))
    assert [item.version for item in taken(*ends, proposal(2, OPTIONAL)).versions] == [1, 2, 3]
    with pytest.raises(EventRefused, match="version 3"):
        taken(*ends, proposal(2, {**ID, "note": (int, 0)}))


def test_schemas_are_bounded() -> None:
    with pytest.raises(EventRefused, match="bytes"):
        taken(proposal(1, {f"field_{number}": (str, "x" * 50) for number in range(1000)}))
    assert MAX_BYTES < 512 * 1024

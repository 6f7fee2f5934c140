"""Typed payloads: versions brought up to date, and errors that name fields and no values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from toska_common.events.errors import InvalidPayload
from toska_common.events.event import Event
from toska_common.events.payload import EventPayload, PayloadTypes
from toska_common.events.retrying import Retrying


class OrderPlaced(EventPayload, topic="orders.order.placed", version=4):
    id: str
    currency: str
    total: float
    note: str = ""


@OrderPlaced.upcast(1)
def _with_currency(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": "EUR"}


@OrderPlaced.upcast(2)
def _with_total(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "total": data["amount"] / 100}


def placed(data: bytes, version: int = 4, topic: str = "orders.order.placed") -> Event:
    return Event(topic=topic, source="/s", id="1", time=datetime(2026, 1, 1, tzinfo=UTC), data=data, version=version)


TYPES = PayloadTypes([OrderPlaced])


def test_each_older_version_becomes_the_newest() -> None:
    newest = OrderPlaced(id="o", currency="EUR", total=1.5)
    assert TYPES.read(placed(b'{"id":"o","amount":150}', 1)) == newest
    assert TYPES.read(placed(b'{"id":"o","amount":150,"currency":"EUR"}', 2)) == newest
    assert TYPES.read(placed(b'{"id":"o","total":1.5,"currency":"EUR"}', 3)) == newest
    assert TYPES.read(placed(newest.model_dump_json().encode())) == newest


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    read = TYPES.read(placed(b'{"id":"o","total":1.5,"currency":"EUR","more":1}', 9))
    assert read == OrderPlaced(id="o", currency="EUR", total=1.5)


def test_topics_without_a_type_are_json_or_bytes() -> None:
    assert TYPES.read(placed(b'{"a": 1}', topic="other")) == {"a": 1}
    with pytest.raises(InvalidPayload):
        TYPES.read(placed(b"{", topic="other"))


@pytest.mark.parametrize(
    ("data", "version", "field"),
    [
        (b'{"id":"o","currency":"EUR"}', 4, "total"),
        (b'{"id":"o","currency":"EUR","total":"hunter2"}', 4, "total"),
        (b"[]", 1, ""),
        (b"", 4, ""),
        (b'{"id":"o"}', 1, ""),
    ],
)
def test_what_does_not_validate_names_the_field_and_no_value(data: bytes, version: int, field: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        TYPES.read(placed(data, version))
    assert refused.value.extensions["problems"][0]["field"] == field
    assert "hunter2" not in str(refused.value) + str(refused.value.extensions)


def test_a_topic_has_one_type_and_a_type_one_topic() -> None:
    class Other(EventPayload, topic="orders.order.placed"):
        id: str

    class Base(EventPayload):
        id: str

    with pytest.raises(ValueError, match="both claim"):
        PayloadTypes([OrderPlaced, Other])
    with pytest.raises(ValueError, match="has no topic"):
        PayloadTypes([Base])
    with pytest.raises(ValueError, match="no upcaster"):
        OrderPlaced.upcast(4)
    with pytest.raises(ValueError, match="no upcaster"):
        OrderPlaced.upcast(1)
    with pytest.raises(ValueError, match="count from 1"):
        type("Zero", (EventPayload,), {}, topic="a", version=0)


def test_waits_grow_up_to_the_longest_and_end() -> None:
    retrying = Retrying(attempts=5, first=timedelta(seconds=1), longest=timedelta(seconds=10), factor=4)
    waits = [retrying.delay_after(attempt) for attempt in range(1, 6)]
    assert waits == [timedelta(seconds=second) for second in (1, 4, 10, 10)] + [None]
    assert retrying.delays == tuple(timedelta(seconds=second) for second in (1, 4, 10))
    assert Retrying(attempts=1).delay_after(1) is None
    assert Retrying(attempts=10_000).delay_after(9_000) == timedelta(minutes=5)
    with pytest.raises(ValueError, match="at least 1"):
        Retrying(attempts=0)

"""Events as CloudEvents: what goes out comes in again, in both forms, and what is wrong is named."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.event import Event, new_id

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
ORDER = Event(
    topic="orders.order.placed",
    source="/services/orders",
    id="0195-1",
    time=NOW,
    data=b'{"id":"o-1","total":12.5}',
    subject="o-1",
    schema="https://shop.example/schemas/order",
    key="o-1",
    version=2,
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    tracestate="vendor=1",
    attributes={"region": "eu"},
)

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
_EVENTS = st.builds(
    Event,
    topic=st.just("a.b"),
    source=_TEXT,
    id=_TEXT,
    time=st.datetimes(timezones=st.just(UTC)),
    data=st.one_of(st.just(b'{"a": [1, null, "x"]}').map(lambda raw: json.dumps(json.loads(raw)).encode())),
    subject=st.none() | _TEXT,
    key=st.none() | _TEXT,
    version=st.integers(1, 1000),
    attributes=st.dictionaries(st.from_regex(r"[a-z0-9]{1,8}x", fullmatch=True), _TEXT, max_size=3),
)


def test_the_structured_form_is_what_the_specification_shows() -> None:
    assert json.loads(cloudevents.to_structured(ORDER)) == {
        "specversion": "1.0",
        "id": "0195-1",
        "source": "/services/orders",
        "type": "orders.order.placed",
        "time": "2026-03-01T12:30:15.250000Z",
        "datacontenttype": "application/json",
        "dataschema": "https://shop.example/schemas/order",
        "subject": "o-1",
        "partitionkey": "o-1",
        "dataversion": "2",
        "traceparent": ORDER.traceparent,
        "tracestate": "vendor=1",
        "region": "eu",
        "data": {"id": "o-1", "total": 12.5},
    }


@given(_EVENTS)
def test_an_event_survives_both_forms(event: Event) -> None:
    structured = cloudevents.from_structured(cloudevents.to_structured(event), now=NOW)
    assert json.loads(structured.data) == json.loads(event.data)
    assert structured.source == event.source
    headers = cloudevents.to_headers(event)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert cloudevents.from_headers(headers, event.data, content_type=event.content_type, now=NOW) == event


def test_data_that_are_no_json_travel_in_base64() -> None:
    event = Event(topic="a", source="/s", id="1", time=NOW, data=b"\x00\xff", content_type="application/octet-stream")
    document = json.loads(cloudevents.to_structured(event))
    assert document["data_base64"] == "AP8="
    assert cloudevents.from_document(document, now=NOW) == event


def test_text_that_is_no_json_is_taken_as_it_stands() -> None:
    document = {**MINIMAL, "datacontenttype": "text/plain", "data": "hello"}
    assert cloudevents.from_document(document, now=NOW).data == b"hello"


MINIMAL: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/elsewhere", "type": "a.b"}


def test_a_minimal_event_of_somebody_else_is_understood() -> None:
    event = cloudevents.from_document({**MINIMAL, "flag": True, "count": 3, "nothing": None}, now=NOW)
    assert (event.topic, event.time, event.version, event.data) == ("a.b", NOW, 1, b"")
    assert event.attributes == {"flag": "true", "count": "3"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"source": None}, "source"),
        ({"type": "a b"}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"Region": "eu"}, "Region"),
        ({"region": ["eu"]}, "region"),
        ({"region": 1.5}, "region"),
        ({"region": "x" * 5000}, "region"),
        ({"time": "0001-01-01T00:00:00+23:00"}, "time"),
        ({"id": "1\n2"}, "id"),
        ({"datacontenttype": "text/plain\r\nx: y"}, "datacontenttype"),
        ({"dataversion": "0"}, "dataversion"),
        ({"dataversion": "²"}, "dataversion"),
        ({"dataversion": "000000001" + "9" * 30}, "dataversion"),
        ({"data": 1, "data_base64": "AA=="}, "data"),
        ({"data_base64": "A"}, "data_base64"),
        ({"data_base64": 3}, "data_base64"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cloudevents.from_document({**MINIMAL, **change}, now=NOW)
    assert [problem["field"] for problem in refused.value.extensions["problems"]] == [field]


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"specversion": NaN}', b"\xff"])
def test_what_is_no_object_is_no_event(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        cloudevents.from_structured(body, now=NOW)


def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    assert cloudevents.from_batch(cloudevents.to_batch([ORDER, ORDER]), now=NOW) == [ORDER, ORDER]
    with pytest.raises(InvalidInput) as refused:
        cloudevents.from_batch(json.dumps([MINIMAL, {**MINIMAL, "id": ""}, 7]).encode(), now=NOW)
    assert [problem["field"] for problem in refused.value.extensions["problems"]] == ["[1].id", "[2]"]
    with pytest.raises(InvalidInput, match="array"):
        cloudevents.from_batch(b"{}", now=NOW)


def test_ids_made_later_sort_later_and_are_uuids_of_version_7() -> None:
    later = datetime(2026, 3, 1, 12, 30, 15, 251_000, tzinfo=UTC)
    ids = [new_id(NOW) for _ in range(50)]
    assert len(set(ids)) == 50
    assert max(ids) < new_id(later)
    assert all(made[14] == "7" and made[19] in "89ab" and len(made) == 36 for made in ids)

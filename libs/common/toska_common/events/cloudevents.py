"""Events as CloudEvents 1.0: the structured JSON form, batches of it, and the binary form (attributes as headers).

What comes in is checked against the specification; what is wrong is named by its attribute. Attributes of other senders
that we have no field for are kept, as text, and go out again.
Sources: CloudEvents 1.0.2, its JSON event format, its HTTP binding (§3) and its AMQP binding (§3.1)
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, unquote

from pydantic_core import from_json, to_json

from toska_common.errors import InvalidInput
from toska_common.events.event import (
    EXTENSION,
    JSON,
    MAX_ATTRIBUTE,
    MAX_KEY,
    OWN_ATTRIBUTES,
    Event,
    encode_json,
    utc,
    wrong_text,
)
from toska_common.events.topics import check_topic

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def to_structured(event: Event) -> bytes:
    """The event as one JSON document."""
    return to_json(to_document(event))


def to_batch(events: list[Event]) -> bytes:
    """Events as one JSON array."""
    return to_json([to_document(event) for event in events])


def to_document(event: Event) -> dict[str, Any]:
    """The event as the members of a JSON document; JSON data stand in it as they are, others in base64."""
    document: dict[str, Any] = to_attributes(event)
    if not event.data:
        return document
    if _is_json(event.content_type):
        try:
            document["data"] = from_json(event.data)
        except ValueError:
            document["data_base64"] = base64.b64encode(event.data).decode()
    else:
        document["data_base64"] = base64.b64encode(event.data).decode()
    return document


def to_attributes(event: Event) -> dict[str, str]:
    """Every attribute that is set, by its CloudEvents name, as text."""
    found = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.topic,
        "time": event.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": event.content_type,
        "dataversion": str(event.version),
    }
    optional = {
        "subject": event.subject,
        "dataschema": event.schema,
        "partitionkey": event.key,
        "traceparent": event.traceparent,
        "tracestate": event.tracestate,
    }
    return {**found, **{name: value for name, value in optional.items() if value}, **event.attributes}


def from_structured(body: bytes, *, now: datetime) -> Event:
    """Read one JSON document.

    Raises:
        InvalidInput: It is none, or not an event; `problems` names the attribute.
    """
    return from_document(_read_json(body), now=now)


def from_batch(body: bytes, *, now: datetime) -> list[Event]:
    """Read a JSON array; all of it is an event, or none.

    Raises:
        InvalidInput: As above, with the place in the array before the attribute.
    """
    documents = _read_json(body)
    if not isinstance(documents, list):
        raise _invalid("", "a batch is a JSON array of events")
    events: list[Event] = []
    problems: list[dict[str, str]] = []
    for place, document in enumerate(cast("list[Any]", documents)):
        try:
            events.append(from_document(document, now=now))
        except InvalidInput as error:
            problems += [
                {**problem, "field": f"[{place}].{problem['field']}".rstrip(".")}
                for problem in error.extensions["problems"]
            ]
    if problems:
        raise InvalidInput("the batch has events that are none", problems=problems)
    return events


def from_document(document: Any, *, now: datetime) -> Event:
    """Read the members of a JSON document.

    Raises:
        InvalidInput: They are not an event.
    """
    if not isinstance(document, dict):
        raise _invalid("", "an event is a JSON object")
    members = cast("dict[str, Any]", document)
    attributes = {name: value for name, value in members.items() if name not in ("data", "data_base64")}
    for name, value in attributes.items():
        if value is not None and not isinstance(value, str | int | bool):
            raise _invalid(name, "an attribute is text, a number or a boolean")
    texts = {name: _text(value) for name, value in attributes.items() if value is not None}
    return from_attributes(texts, _data(members, texts), now=now)


def from_attributes(attributes: Mapping[str, str], data: bytes, *, now: datetime) -> Event:
    """An event of attributes by their CloudEvents names; `now` stands in for a missing time.

    Raises:
        InvalidInput: One is missing or wrong.
    """
    if attributes.get("specversion", "") != "1.0":
        raise _invalid("specversion", "this is CloudEvents 1.0, so it must be 1.0")
    for name in ("id", "source"):
        if not attributes.get(name):
            raise _invalid(name, "is required and must not be empty")
    extensions = {name: value for name, value in attributes.items() if name not in OWN_ATTRIBUTES}
    for name, value in attributes.items():
        if not EXTENSION.fullmatch(name):
            raise _invalid(name[:40], "names of attributes are a-z and 0-9, 20 characters at most")
        most = MAX_KEY if name == "partitionkey" else MAX_ATTRIBUTE
        reason = wrong_text(value, most)
        if reason is not None:
            raise _invalid(name, reason)
    return Event(
        topic=check_topic(attributes.get("type", ""), field="type"),
        source=attributes["source"],
        id=attributes["id"],
        time=_time(attributes["time"]) if attributes.get("time") else now,
        data=data,
        content_type=attributes.get("datacontenttype") or JSON,
        subject=attributes.get("subject") or None,
        schema=attributes.get("dataschema") or None,
        key=attributes.get("partitionkey") or None,
        version=_version(attributes.get("dataversion", "1")),
        traceparent=attributes.get("traceparent", ""),
        tracestate=attributes.get("tracestate", ""),
        attributes=extensions,
    )


def to_headers(event: Event, prefix: str = "ce-") -> dict[str, str]:
    """The binary form's headers, but for the content type; values are percent-encoded (HTTP binding §3.1.3.2)."""
    found = to_attributes(event)
    del found["datacontenttype"]
    return {prefix + name: quote(value, safe=_PLAIN) for name, value in found.items()}


def from_headers(
    headers: Mapping[str, str], body: bytes, *, content_type: str, now: datetime, prefix: str = "ce-"
) -> Event:
    """Read the binary form.

    Args:
        headers: With names in lower case.

    Raises:
        InvalidInput: They are not an event's.
    """
    attributes = {
        name.removeprefix(prefix): unquote(value) for name, value in headers.items() if name.startswith(prefix)
    }
    if content_type:
        attributes["datacontenttype"] = content_type
    return from_attributes(attributes, body, now=now)


_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media == JSON or media.endswith("+json")


def _read_json(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _invalid("", f"is not JSON: {error}") from error


def _data(members: Mapping[str, Any], attributes: Mapping[str, str]) -> bytes:
    if "data" in members and "data_base64" in members:
        raise _invalid("data", "stands beside data_base64; an event has one of them")
    if "data_base64" in members:
        try:
            return base64.b64decode(members["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise _invalid("data_base64", "is not base64") from error
    if "data" not in members:
        return b""
    value = members["data"]
    if isinstance(value, str) and not _is_json(attributes.get("datacontenttype", JSON)):
        return value.encode()
    return encode_json(value)


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _time(text: str) -> datetime:
    try:
        return utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise _invalid("time", "is no timestamp of RFC 3339") from error


def _version(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not 1 <= int(text) <= 1_000_000:
        raise _invalid("dataversion", "counts from 1")
    return int(text)


def _invalid(field: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{field or 'the event'} {reason}", problems=[{"field": field, "reason": reason}])

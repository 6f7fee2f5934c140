"""Events as AMQP messages, by CloudEvents' AMQP binding: binary mode out, binary and structured mode in. Pure.

Attributes are application properties (`headers` of AMQP 0-9-1) that begin with `cloudEvents_`, all of them text; from
others `cloudEvents:` is understood as well. Beside them go headers of our own, which other readers need not know:

    toska-at       when it was published, in milliseconds since 1970
    toska-expires  from when on nobody wants it, the same way
    toska-slot     the number that its key falls on, for ordered groups
    toska-attempt  how often it was given to the group before, on its way through retries
    toska-reason, toska-died, toska-id, toska-topic   of dead letters

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md §3
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from toska_common.errors import InvalidInput
from toska_common.events.amqp.names import SLOTS
from toska_common.events.event import JSON, OWN_ATTRIBUTES, Event, utc
from toska_common.events.topics import check_topic

PREFIX, OTHER_PREFIX = "cloudEvents_", "cloudEvents:"
STRUCTURED = "application/cloudevents+json"
AT, EXPIRES, SLOT, ATTEMPT = "toska-at", "toska-expires", "toska-slot", "toska-attempt"
REASON, DIED, ID, TOPIC = "toska-reason", "toska-died", "toska-id", "toska-topic"
MARKER = "toska-marker"
DELIVERIES, DEATHS = "x-delivery-count", "x-death"

FromStructured = Callable[[bytes], Event]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LONG = struct.Struct(">I")
_NUMBER = struct.Struct(">cq")


class BadEnvelope(Exception):
    """A message that is no event; the text says why."""


class Envelope(NamedTuple):
    """An event as it is sent: the encoded table of headers, the content type and the body."""

    table: bytes
    content_type: bytes
    body: bytes

    @property
    def size(self) -> int:
        return len(self.table) + len(self.body)


def milliseconds(moment: datetime) -> int:
    """Since 1970; a moment without a zone is in UTC."""
    return (utc(moment) - _EPOCH) // _MILLISECOND


def moment(since_1970: int) -> datetime:
    """The other way round."""
    return _EPOCH + timedelta(milliseconds=since_1970)


def slot_of(key: str) -> int:
    """The number that a key falls on, the same for every publisher and version."""
    return zlib.crc32(key.encode()) % SLOTS


def _name(attribute: str) -> bytes:
    raw = (PREFIX + attribute).encode()
    return bytes((len(raw),)) + raw + b"S"


_NAMES = {name: _name(name) for name in OWN_ATTRIBUTES}
_FIXED = _NAMES["specversion"] + _LONG.pack(3) + b"1.0"
_NUMBERS = {name: bytes((len(name),)) + name.encode() for name in (AT, EXPIRES, SLOT)}
_FIRST_VERSION = _NAMES["dataversion"] + _LONG.pack(1) + b"1"


def seal(event: Event, at: int, expires: int | None = None) -> Envelope:
    """An event as it is sent, at `at` (milliseconds since 1970).

    The table is made here and not by a library that takes a mapping of anything: this is most of what publishing costs.

    Raises:
        InvalidInput: An attribute cannot be encoded.
    """
    parts = [_FIXED]
    text: list[tuple[bytes, str]] = [
        (_NAMES["id"], event.id),
        (_NAMES["source"], event.source),
        (_NAMES["type"], event.topic),
        (_NAMES["time"], event.time.isoformat()),
    ]
    if event.key is not None:
        text.append((_NAMES["partitionkey"], event.key))
        parts += _NUMBERS[SLOT], _NUMBER.pack(b"l", slot_of(event.key))
    if event.subject is not None:
        text.append((_NAMES["subject"], event.subject))
    if event.traceparent:
        text.append((_NAMES["traceparent"], event.traceparent))
    if event.tracestate:
        text.append((_NAMES["tracestate"], event.tracestate))
    if event.schema is not None:
        text.append((_NAMES["dataschema"], event.schema))
    if event.version == 1:
        parts.append(_FIRST_VERSION)
    else:
        text.append((_NAMES["dataversion"], str(event.version)))
    for name, value in event.attributes.items():
        text.append((_name(name), value))
    try:
        for name, value in text:
            raw = value.encode()
            parts += name, _LONG.pack(len(raw)), raw
        content_type = event.content_type.encode("ascii")
    except UnicodeEncodeError as error:
        raise _unencodable(event, error.object) from error
    if len(content_type) > 255:
        raise _unencodable(event, event.content_type)
    parts += _NUMBERS[AT], _NUMBER.pack(b"l", at)
    if expires is not None:
        parts += _NUMBERS[EXPIRES], _NUMBER.pack(b"l", expires)
    return Envelope(b"".join(parts), content_type, event.data)


def _unencodable(event: Event, value: str) -> InvalidInput:
    fields = {"id": event.id, "source": event.source, "subject": event.subject, "key": event.key, **event.attributes}
    field = next((name for name, text in fields.items() if text == value), "content_type")
    reason = "is no text that can be encoded, or is too long"
    return InvalidInput(f"{field} {reason}", problems=[{"field": field, "reason": reason}])


def unseal(
    headers: Mapping[str, Any], content_type: str, body: bytes, *, structured: FromStructured | None = None
) -> Event:
    """The event in a message.

    Args:
        structured: Reads the structured mode.

    Raises:
        BadEnvelope: There is none.
    """
    if content_type.startswith(STRUCTURED):
        if structured is None:
            raise BadEnvelope("it is an event in CloudEvents' structured mode, which is not read here")
        try:
            return structured(body)
        except InvalidInput as error:
            raise BadEnvelope(error.detail) from error
    found = {
        name[len(PREFIX) :]: value if isinstance(value, str) else _text(value)
        for name, value in headers.items()
        if name.startswith((PREFIX, OTHER_PREFIX))
    }
    try:
        if found.pop("specversion") != "1.0":
            raise BadEnvelope("it is no event of CloudEvents 1.0")
        return _event(found, content_type, body)
    except KeyError as error:
        raise BadEnvelope(f"it is no event of CloudEvents: {error.args[0]} is missing") from error
    except (ValueError, InvalidInput) as error:
        raise BadEnvelope(f"it is no event of CloudEvents: {error}") from error


def _event(found: dict[str, str], content_type: str, body: bytes) -> Event:
    take = found.pop
    topic, source, id_, time = check_topic(take("type"), field="type"), take("source"), take("id"), take("time", "")
    version = int(take("dataversion", "1"))
    return Event(
        topic=topic,
        source=source,
        id=id_,
        time=utc(datetime.fromisoformat(time)) if time else _EPOCH,
        data=body,
        content_type=take("datacontenttype", "") or content_type or JSON,
        subject=take("subject", None),
        schema=take("dataschema", None),
        key=take("partitionkey", None),
        version=version,
        traceparent=take("traceparent", ""),
        tracestate=take("tracestate", ""),
        attributes=found,
    )


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return utc(value).isoformat()
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="replace")
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(headers: Mapping[str, Any], name: str) -> int | None:
    """A number of ours among headers that anybody may have written."""
    value = headers.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def unreadable(routing_key: str, message_id: str, body: bytes, content_type: str) -> Event:
    """What stands for a message that is no event where one has to be shown."""
    topic = routing_key if routing_key else "unreadable"
    return Event(
        topic=topic,
        source="/amqp",
        id=message_id or "-",
        time=_EPOCH,
        data=body,
        content_type=content_type or "application/octet-stream",
    )

"""Events as bytes: a head of text fields with a NUL between two, and the data as they are.

Written and read for every event on both sides of the socket, and so made of what costs least in Python: joining and
splitting text takes a third of the time that JSON takes. Attributes of CloudEvents hold no control characters, so NUL
parts them and U+0001 can stand for one that is missing.
"""

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from toska_common.errors import InvalidInput
from toska_common.events.embedded.frames import ID_BYTES, BadFrame
from toska_common.events.event import Event, utc
from toska_common.events.topics import check_topic
from toska_common.events.transport import Message

MAX_HEAD = 64 << 10
"""Bytes of an event's attributes, all together."""

_NONE = "\x01"
_FIXED = 11
_MESSAGE = struct.Struct("<IIBqq")
_DELIVERED = struct.Struct("<qIBII")
_STORED = struct.Struct("<qqII")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Publication(NamedTuple):
    """An event on its way into the log; moments in microseconds of wall time, 0 for none."""

    topic: str
    head: bytes
    data: bytes
    priority: int
    deliver_at: int
    expires_at: int


class DeliveredEntry(NamedTuple):
    """An event on its way to a consumer; those of ephemeral topics have offsets below 0, which mean nothing."""

    offset: int
    attempt: int
    priority: int
    head: bytes
    data: bytes


class StoredEntry(NamedTuple):
    """An event read back; the moment in microseconds of wall time."""

    offset: int
    stored_at: int
    head: bytes
    data: bytes


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly; a moment without a zone is in UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def moment(since_1970: int) -> datetime:
    """The other way round."""
    return _EPOCH + timedelta(microseconds=since_1970)


def encode_head(event: Event) -> bytes:
    """An event's attributes.

    Raises:
        InvalidInput: One holds a NUL or a lone surrogate, or they are too long.
    """
    fields = [
        event.topic,
        event.source,
        event.id,
        _NONE if event.key is None else event.key,
        (event.time if event.time.tzinfo else utc(event.time)).isoformat(),
        event.content_type,
        _NONE if event.subject is None else event.subject,
        _NONE if event.schema is None else event.schema,
        str(event.version),
        event.traceparent,
        event.tracestate,
    ]
    for name, value in event.attributes.items():
        fields += (name, value)
    text = "\0".join(fields)
    if text.count("\0") != len(fields) - 1:
        raise InvalidInput("an attribute of the event holds a NUL", problems=_whose(event, "\0"))
    try:
        head = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "an attribute of the event is no text", problems=_whose(event, error.object[error.start])
        ) from error
    if len(head) > MAX_HEAD:
        raise InvalidInput(f"the event's attributes have {len(head)} bytes; {MAX_HEAD} are allowed")
    return head


def decode_event(head: bytes, data: bytes) -> Event:
    """The event that was encoded."""
    topic, source, id_, key, time, content_type, subject, schema, version, parent, state, *rest = head.decode().split(
        "\0"
    )
    return Event(
        topic=topic,
        source=source,
        id=id_,
        time=datetime.fromisoformat(time),
        data=data,
        content_type=content_type,
        subject=None if subject == _NONE else subject,
        schema=None if schema == _NONE else schema,
        key=None if key == _NONE else key,
        version=int(version),
        traceparent=parent,
        tracestate=state,
        attributes=dict(zip(rest[::2], rest[1::2], strict=True)) if rest else {},
    )


def key_of(head: bytes) -> str | None:
    """The ordering key in an event's head."""
    key = head.split(b"\0", 4)[3]
    return None if key == b"\x01" else key.decode()


def identity_of(head: bytes) -> bytes:
    """What tells doubles apart: topic, source and id, as they stand in the head.

    The topic too: an event that somebody hands on under another one is not sent again, and must not be lost.
    """
    return b"\0".join(head.split(b"\0", 3)[:3])


def encode_messages(messages: Sequence[Message]) -> list[bytes]:
    """A batch, in pieces to be joined.

    Raises:
        InvalidInput: An attribute cannot be encoded, or is no topic.
    """
    pieces: list[bytes] = []
    for message in messages:
        event = message.event
        head = encode_head(event)
        due, expires = message.deliver_at, message.expires_at
        packed = _MESSAGE.pack(
            len(head),
            len(event.data),
            message.priority,
            0 if due is None else microseconds(due),
            0 if expires is None else microseconds(expires),
        )
        pieces += (packed, head, event.data)
    return pieces


def decode_messages(payload: bytes, max_event_bytes: int, known_topics: set[str]) -> list[Publication]:
    """What a client wants published.

    Args:
        payload: A PUBLISH frame's.
        max_event_bytes: Longest data of one event.
        known_topics: Topics whose names were checked; new ones are added.

    Raises:
        BadFrame: It is none, or holds what no client of ours sends.
    """
    found: list[Publication] = []
    at, end = ID_BYTES, len(payload)
    while at < end:
        if end - at < _MESSAGE.size:
            raise BadFrame("a message that is cut off")
        head_bytes, data_bytes, priority, due, expires = _MESSAGE.unpack_from(payload, at)
        at += _MESSAGE.size
        if head_bytes > MAX_HEAD or data_bytes > max_event_bytes or end - at < head_bytes + data_bytes or priority > 2:
            raise BadFrame("a message over the limits, or cut off")
        head = payload[at : at + head_bytes]
        at += head_bytes
        topic = _checked_topic(head, known_topics)
        found.append(Publication(topic, head, payload[at : at + data_bytes], priority, due, expires))
        at += data_bytes
    return found


def _checked_topic(head: bytes, known_topics: set[str]) -> str:
    # Whatever is wrong is found here, and not by the consumers that would fail over it one after the other.
    try:
        fields = head.decode().split("\0")
        if len(fields) < _FIXED or len(fields) % 2 == 0:
            raise ValueError("fields are missing")
        if datetime.fromisoformat(fields[4]).tzinfo is None:
            raise ValueError("a time without a zone")
        int(fields[8])
        topic = fields[0]
        if topic not in known_topics:
            check_topic(topic)
            if len(known_topics) > 100_000:
                known_topics.clear()
            known_topics.add(topic)
    except (ValueError, InvalidInput) as error:
        raise BadFrame(f"an event that cannot be read: {error}") from error
    return topic


def pack_delivered(offset: int, attempt: int, priority: int, head: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """An entry of a DELIVER frame, in pieces to be joined."""
    return _DELIVERED.pack(offset, attempt, priority, len(head), len(data)), head, data


def unpack_delivered(payload: bytes) -> Iterator[DeliveredEntry]:
    """The entries of a DELIVER frame."""
    at, end = ID_BYTES, len(payload)
    while at < end:
        offset, attempt, priority, head_bytes, data_bytes = _DELIVERED.unpack_from(payload, at)
        at += _DELIVERED.size
        middle = at + head_bytes
        yield DeliveredEntry(offset, attempt, priority, payload[at:middle], payload[middle : middle + data_bytes])
        at = middle + data_bytes


def pack_stored(offset: int, stored_at: int, head: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """An entry of a PAGE frame, in pieces to be joined."""
    return _STORED.pack(offset, stored_at, len(head), len(data)), head, data


def unpack_stored(payload: bytes, at: int) -> Iterator[StoredEntry]:
    """The entries of a PAGE frame, from `at` on."""
    end = len(payload)
    while at < end:
        offset, stored_at, head_bytes, data_bytes = _STORED.unpack_from(payload, at)
        at += _STORED.size
        middle = at + head_bytes
        yield StoredEntry(offset, stored_at, payload[at:middle], payload[middle : middle + data_bytes])
        at = middle + data_bytes


def _whose(event: Event, character: str) -> list[dict[str, str]]:
    texts = {
        "topic": event.topic,
        "source": event.source,
        "id": event.id,
        "key": event.key or "",
        "subject": event.subject or "",
        **{f"attributes.{name}": f"{name}{value}" for name, value in event.attributes.items()},
    }
    found = [name for name, value in texts.items() if character in value] or ["event"]
    return [{"field": name, "reason": "it holds a character that attributes may not"} for name in found]

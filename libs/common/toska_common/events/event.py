"""An event as it travels: the attributes of CloudEvents 1.0, its data as bytes, and our three extensions.

`partitionkey` is CloudEvents' own extension for ordering (here `key`), `traceparent` and `tracestate` are those of
distributed tracing; `dataversion` is ours, and counts the versions of a payload's schema.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json

from toska_common.errors import InvalidInput

JSON = "application/json"

EXTENSION = re.compile(r"[a-z0-9]{1,20}")
"""Names that CloudEvents lets extensions have."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MAX_KEY = 255
"""Characters of a key."""
MAX_ATTRIBUTE = 4096
"""Characters of any other attribute's value. CloudEvents asks for 64 KiB to be passed on, data included."""

OWN_ATTRIBUTES = frozenset(
    {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data",
        "data_base64", "partitionkey", "traceparent", "tracestate", "dataversion",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        topic: What it was, as dotted words; CloudEvents' `type`, and what subscriptions match.
        source: Who says so: `/services/orders`.
        id: Unique within the source; `(source, id)` tells doubles apart.
        data: The payload, in `content_type`.
        subject: What it happened to, within the source.
        key: Events of one key keep their order; `None` claims none.
        version: Version of the payload's schema, from 1.
        attributes: Further extension attributes by name (`EXTENSION`); what filters look at.
    """

    topic: str
    source: str
    id: str
    time: datetime
    data: bytes = b""
    content_type: str = JSON
    subject: str | None = None
    schema: str | None = None
    key: str | None = None
    version: int = 1
    traceparent: str = ""
    tracestate: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])

    def attribute(self, name: str) -> str | None:
        """An attribute by its CloudEvents name, as filters see it."""
        match name:
            case "type":
                return self.topic
            case "source":
                return self.source
            case "id":
                return self.id
            case "subject":
                return self.subject
            case "partitionkey":
                return self.key
            case "dataversion":
                return str(self.version)
            case "datacontenttype":
                return self.content_type
            case _:
                return self.attributes.get(name)


def new_id(now: datetime) -> str:
    """A UUID of version 7: ids made later sort later, which keeps indexes of them small (RFC 9562 §5.7)."""
    number = int(now.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_attributes(extensions: Mapping[str, str], *, subject: str, key: str) -> None:
    """Refuse extension attributes that CloudEvents would not have, and values that are too long.

    Raises:
        InvalidInput: One is; says which.
    """
    for name in extensions:
        if not EXTENSION.fullmatch(name) or name in OWN_ATTRIBUTES:
            reason = "is CloudEvents' own" if name in OWN_ATTRIBUTES else "is not a-z and 0-9 (20 at most)"
            raise InvalidInput(f"attribute {name[:40]!r} {reason}", problems=[{"field": name[:40], "reason": reason}])
    for name, value, most in (
        ("key", key, MAX_KEY),
        ("subject", subject, MAX_ATTRIBUTE),
        *((name, value, MAX_ATTRIBUTE) for name, value in extensions.items()),
    ):
        reason = wrong_text(value, most)
        if reason is not None:
            raise InvalidInput(f"{name} {reason}", problems=[{"field": name, "reason": reason}])


def wrong_text(value: str, most: int) -> str | None:
    """Why an attribute's value is none (CloudEvents 1.0.2 §Type System), or `None` if it is."""
    if len(value) > most:
        return f"is longer than {most} characters"
    if _CONTROLS.search(value):
        return "holds a control character"
    return None


def utc(moment: datetime) -> datetime:
    """`moment` in UTC; one without a zone is taken to be.

    Raises:
        ValueError: It is before the year 1 there, or after 9999.
    """
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a moment out of the years 1 to 9999") from error


def encode_json(data: Any) -> bytes:
    """Data as JSON.

    Raises:
        InvalidInput: They hold a number that JSON has not; readers would refuse all of it.
    """
    encoded = to_json(data)
    if b"Infinity" in encoded or b"NaN" in encoded:
        try:
            from_json(encoded, allow_inf_nan=False)
        except ValueError as error:
            reason = "holds a number that JSON has not (NaN, Infinity, or one that is too large)"
            raise InvalidInput(f"the data {reason}", problems=[{"field": "data", "reason": reason}]) from error
    return encoded

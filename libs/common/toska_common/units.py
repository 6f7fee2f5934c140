"""Durations and sizes as people write them: `15s`, `250ms`, `1h`, `64KiB`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = timedelta(days=36_500)
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB|kB|KB|MB|GB)?")
_LARGEST = 2**50
_BYTES = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(value: Any) -> Any:
    """Read `1m30s`, `250ms` or `0s`; a bare number is refused, since nobody can tell its unit."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("a duration is a number with its unit, such as 15s or 250ms")
    text = value.strip()
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part.group() for part in parts) != text:
        raise ValueError(f"{value!r} is not a duration; write a number with ms, s, m, h or d, such as 15s or 1m30s")
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if seconds > _LONGEST.total_seconds():
        # Far below what a timedelta takes, and what Envoy does: neither says so as one says that a text is wrong.
        raise ValueError(f"is longer than {_LONGEST.days} days")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back."""
    milliseconds = round(value.total_seconds() * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


def parse_size(value: Any) -> Any:
    """Read `64KiB`, `10MB` or a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} is not a size; write bytes, or a number with KiB, MiB or GiB")
        size = int(match[1]) * _BYTES[match[2]]
    if size > _LARGEST:
        raise ValueError(f"is larger than {_LARGEST} bytes")
    return size


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["15s", "250ms"]}),
]
"""A length of time, written as `15s`."""

Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["64KiB"]})
]
"""A number of bytes, written as `64KiB`."""

"""Conditional and range requests, answered from a stored response (RFC 9110 §13 and §14, RFC 9111 §4.3.2). Pure."""

import re
from typing import Final

from toska_gateway.worker.cache.dates import read_date
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.http1 import field_name

_ETAG: Final = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ETAGS: Final = re.compile(rb'[ \t]*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?[ \t]*(?:,|\Z)')
_RANGE: Final = re.compile(rb"[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")
_DESCRIBES_CONTENT: Final = frozenset(
    {b"content-encoding", b"content-language", b"content-length", b"content-range", b"content-type"}
)
_STRONG_AFTER_S: Final = 60.0
"""A modification date is a strong validator only if nothing can have changed in the second it names."""


def is_etag(value: bytes) -> bool:
    """Whether this is one entity tag."""
    return _ETAG.fullmatch(value) is not None


def read_etags(value: bytes) -> list[bytes] | None:
    """The opaque parts of a list of entity tags, for weak comparison; `None` if it is malformed."""
    found: list[bytes] = []
    at, end = 0, len(value)
    while at < end:
        match = _ETAGS.match(value, at)
        if match is None:
            return None
        if match[2] is not None:
            found.append(match[2])
        at = match.end()
    return found


def is_not_modified(entry: Entry, if_none_match: bytes | None, if_modified_since: bytes | None) -> bool:
    """Whether a client that sends these has what is stored (RFC 9110 §13.2.2, RFC 9111 §4.3.2)."""
    if not 200 <= entry.status < 300:
        return False
    if if_none_match is not None:
        if if_none_match == b"*":
            return True
        if entry.etag is None:
            return False
        return entry.etag.removeprefix(b"W/") in (read_etags(if_none_match) or ())
    if if_modified_since is None or entry.last_modified is None:
        return False
    since, modified = read_date(if_modified_since), read_date(entry.last_modified)
    return since is not None and modified is not None and modified <= since


def not_modified_parts(parts: list[bytes]) -> list[bytes]:
    """The head of a 304, made of that of the response which it stands for (RFC 9110 §15.4.5)."""
    kept = [part for part in parts[1:] if field_name(part) not in _DESCRIBES_CONTENT]
    return [b"HTTP/1.1 304 Not Modified\r\n", *kept]


class Unsatisfiable(Exception):
    """The range lies beyond the end."""


def read_range(value: bytes, size: int) -> tuple[int, int] | None:
    """The first byte of a range and the one after its last; `None` if the field is to be ignored.

    Several ranges are answered with the whole, as RFC 9110 §14.2 leaves to us: multipart answers to many small ranges
    are a way to wear a server out.

    Raises:
        Unsatisfiable: The representation has no such bytes.
    """
    unit, _, ranges = value.partition(b"=")
    match = _RANGE.fullmatch(ranges)
    if unit.strip(b" \t").lower() != b"bytes" or match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - int(last)), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(size, int(last) + 1) if last else size


def holds_if_range(entry: Entry, if_range: bytes, date: float | None) -> bool:
    """Whether a client's part and ours are of the very same representation (RFC 9110 §13.1.5)."""
    if _ETAG.fullmatch(if_range):
        return entry.etag == if_range and not if_range.startswith(b"W/")
    if entry.last_modified != if_range or date is None:
        return False
    modified = read_date(if_range)
    return modified is not None and date - modified >= _STRONG_AFTER_S

"""A stored response as an answer: whole, one range of it, or the word that nothing has changed."""

from typing import Final

from toska_gateway.worker.cache.asked import Asked
from toska_gateway.worker.cache.dates import read_date
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.preconditions import (
    Unsatisfiable,
    holds_if_range,
    is_not_modified,
    not_modified_parts,
    read_range,
)
from toska_gateway.worker.http1 import ResponseHead, field_name, field_value

_LENGTH: Final = b"content-length"
_PARTIAL: Final = b"HTTP/1.1 206 Partial Content\r\n"
_BEYOND: Final = b"HTTP/1.1 416 Range Not Satisfiable\r\n"


def answer_with(
    entry: Entry, asked: Asked, member: bytes, now: float, *, is_head: bool, joined: bool
) -> tuple[ResponseHead, bytes]:
    """The response that a stored one makes for a request, with Age and Cache-Status.

    Args:
        entry: What is stored.
        asked: The request.
        member: Ours in Cache-Status.
        now: Monotonic seconds.
        is_head: Without the body.
        joined: Nobody will look at single fields, so that they may stay in one piece.
    """
    head = ResponseHead()
    head.status = entry.status
    head.http11 = True
    head.close = False
    head.special = {}
    age = now - entry.born_at
    ours = b"age: %d\r\ncache-status: %b\r\n" % (age if age > 0 else 0, member)
    body = entry.body
    head.body_length = 0 if is_head else len(body)
    if joined and not asked.is_conditional:
        head.parts = [entry.head, ours]
        return head, b"" if is_head else body
    parts = entry.parts()
    fields = asked.fields
    if is_not_modified(entry, fields.get(b"if-none-match"), fields.get(b"if-modified-since")):
        head.status = 304
        head.body_length = 0
        head.parts = [*not_modified_parts(parts), ours]
        return head, b""
    if b"range" in fields and entry.status == 200 and not is_head:
        body = _apply_range(entry, fields, head, parts)
        head.body_length = len(body)
    head.parts = [part for part in parts if field_name(part) != _LENGTH]
    if entry.status != 204:
        head.special = {_LENGTH: (b"%d" % len(body),)}
    head.parts.append(ours)
    return head, b"" if is_head else body


def _apply_range(entry: Entry, fields: dict[bytes, bytes], head: ResponseHead, parts: list[bytes]) -> bytes:
    """What of the body was asked for; the head is changed to say so."""
    body = entry.body
    if_range = fields.get(b"if-range")
    if if_range is not None and not holds_if_range(entry, if_range, _date(parts)):
        return body
    try:
        found = read_range(fields[b"range"], len(body))
    except Unsatisfiable:
        head.status = 416
        parts[0] = _BEYOND
        parts.append(b"content-range: bytes */%d\r\n" % len(body))
        return b""
    if found is None:
        return body
    start, end = found
    head.status = 206
    parts[0] = _PARTIAL
    parts.append(b"content-range: bytes %d-%d/%d\r\n" % (start, end - 1, len(body)))
    return body[start:end]


def _date(parts: list[bytes]) -> float | None:
    dates = [field_value(part) for part in parts[1:] if field_name(part) == b"date"]
    return read_date(dates[0]) if len(dates) == 1 else None

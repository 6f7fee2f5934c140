"""Reading a response's head, which upstreams are held to as strictly as clients are to theirs."""

import re
from typing import Final

from toska_gateway.worker.http1.fields import RESPONSE_SPECIAL, FieldMemo, connection_options, drop_fields
from toska_gateway.worker.http1.grammar import CHUNKED, CRLF, BadMessage, remember

MAX_RESPONSE_HEAD: Final = 256 * 1024
_MAX_REPEATS: Final = 100
_KEEP_ALIVE: Final = (b"keep-alive",)

_fields = FieldMemo(RESPONSE_SPECIAL)


class ResponseHead:
    """One response's head. `parts` holds the status line and the end-to-end field lines as they are passed on."""

    __slots__ = ("body_length", "close", "http11", "parts", "special", "status")

    status: int
    http11: bool
    body_length: int | None  # bytes, CHUNKED, or None: until the upstream closes
    close: bool
    parts: list[bytes]
    special: dict[bytes, tuple[bytes, ...]]


_status_lines: dict[bytes, tuple[int, bytes]] = {}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")


def _read_status_line(line: bytes) -> tuple[int, bytes]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadMessage(502, "bad-upstream-response", "the upstream's status line is malformed")
    known = int(match[1]), b"HTTP/1.1 " + match[1] + b" " + (match[2] or b"") + CRLF
    remember(_status_lines, line, known)
    return known


def read_response(data: bytes, *, bodiless: bool) -> ResponseHead:
    """Read a response's head, which ends with its empty line; `bodiless` if it answers a HEAD.

    Raises:
        BadMessage: It breaks a rule; status 502, since the upstream is at fault.
    """
    head = ResponseHead()
    lines = data.split(CRLF)
    line = lines[0]
    known_line = _status_lines.get(line) or _read_status_line(line)
    head.status = known_line[0]
    head.parts = parts = [known_line[1]]
    special: dict[bytes, tuple[bytes, ...]] = {}
    head.special = special
    known, learn = _fields.get, _fields.learn
    for field in lines[1:-2]:
        entry = known(field) or learn(field)
        if entry is None:
            raise BadMessage(502, "bad-upstream-response", "a header field of the upstream's response is malformed")
        key, wire, value = entry
        if key is None:
            parts.append(wire)
        elif key in special:
            special[key] += (value,)
            if len(special[key]) > _MAX_REPEATS:
                raise BadMessage(502, "bad-upstream-response", "the upstream repeats a header field without end")
        else:
            special[key] = (value,)
    head.http11 = line[7] == 0x31
    head.close = not head.http11
    if special:
        connection = special.get(b"connection")
        if connection is not None and (connection != _KEEP_ALIVE or head.close):
            options = connection_options(connection)
            head.close = options.close or (head.close and not options.keep_alive)
            if options.nominated:
                drop_fields(parts, options.nominated)
    head.body_length = _response_length(head, bodiless)
    return head


def _response_length(head: ResponseHead, bodiless: bool) -> int | None:
    special = head.special
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    if codings is not None:
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadMessage(502, "bad-upstream-response", "the upstream used a transfer coding that is not served")
        if lengths is not None:
            raise BadMessage(502, "bad-upstream-response", "the upstream sent both lengths and a transfer coding")
        if not head.http11:
            raise BadMessage(502, "bad-upstream-response", "Transfer-Encoding has no meaning in HTTP/1.0")
    elif lengths is not None:
        length = lengths[0]
        if len(lengths) != 1 or not length.isdigit() or len(length) > 18:
            raise BadMessage(502, "bad-upstream-response", "the upstream's Content-Length is no plain number")
        if not bodiless and head.status not in (204, 304):
            return int(length)
    if bodiless or head.status in (204, 304) or head.status < 200:
        return 0
    return CHUNKED if codings is not None else None

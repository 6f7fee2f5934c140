"""What bytes mean to somebody else: heads as h11 reads them, bodies by the letter, paths by the standard library.

The oracle of the fuzz tests: whatever passes through the gateway has to mean the same on both sides.
"""

import contextlib
import re
from collections.abc import Generator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import h11

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length", "te", "trailer",
        "upgrade", "expect", "http2-settings", "proxy-authorization", "proxy-authenticate", "host",
    }
)  # fmt: skip
"""Fields that end at a proxy, or that frame the message or say where it goes."""
SET_BY_PROXY = frozenset(
    {
        "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
        "x-real-ip", "forwarded", "x-request-id", "traceparent", "via", "x-toska-caller", "x-consul-token",
    }
)  # fmt: skip


@dataclass
class Meaning:
    """A whole message, stripped of how it was written down."""

    start: str
    host: bytes
    fields: list[tuple[str, bytes]]
    body: bytes = b""


class _Unclear(Exception):
    """The bytes are no whole message."""


def requests_in(data: bytes) -> Generator[Meaning]:
    """The whole requests in the bytes of one connection, up to where they stop making sense or stop."""
    persistent = True
    with contextlib.suppress(h11.RemoteProtocolError, _Unclear):
        while persistent and data:
            head, rest = _split(data.removeprefix(b"\r\n"))  # RFC 9112 §2.2
            server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            server.receive_data(head)
            event = server.next_event()
            if not isinstance(event, h11.Request):
                return
            body, data = _body(dict(event.headers), rest, 0)
            yield _request(event, body)
            closing = b"close" in _options(list(event.headers)) or event.http_version < b"1.1"
            persistent = not closing or (event.http_version < b"1.1" and b"keep-alive" in _options(list(event.headers)))


def response_in(data: bytes, method: str, *, closed: bool) -> Meaning | None:
    """The final response at the beginning of the bytes, if it is whole and makes sense."""
    with contextlib.suppress(h11.RemoteProtocolError, _Unclear):
        while True:
            head, data = _split(data)
            client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
            client.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
            client.send(h11.EndOfMessage())
            client.receive_data(head)
            event = client.next_event()
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                return None
        bodiless = method == "HEAD" or event.status_code in (204, 304)
        body, _ = (b"", b"") if bodiless else _body(dict(event.headers), data, None, closed=closed)
        return Meaning(str(event.status_code), b"", end_to_end(list(event.headers)), body)
    return None


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = data.find(b"\r\n\r\n") + 4
    if end == 3:
        raise _Unclear
    return data[:end], data[end:]


def _body(
    fields: dict[bytes, bytes], data: bytes, otherwise: int | None, *, closed: bool = False
) -> tuple[bytes, bytes]:
    """A message's body and what follows; without framing it has `otherwise` bytes, or lasts until the end (`None`)."""
    if b"transfer-encoding" in fields:
        return _chunked(data)
    length = int(fields[b"content-length"]) if b"content-length" in fields else otherwise
    if length is None:
        if not closed:
            raise _Unclear
        return data, b""
    if len(data) < length:
        raise _Unclear
    return data[:length], data[length:]


_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00-\x08\x0a-\x1f\x7f]*\r\n")


def _chunked(data: bytes) -> tuple[bytes, bytes]:
    """By the letter of RFC 9112 §7.1; h11 would not take a space before an extension."""
    body, at = b"", 0
    while match := _SIZE.match(data, at):
        size, at = int(match[1], 16), match.end()
        if size == 0:
            while trailer := _TRAILER.match(data, at):
                at = trailer.end()
            if data[at : at + 2] != b"\r\n":
                break
            return body, data[at + 2 :]
        if data[at + size : at + size + 2] != b"\r\n":
            break
        body, at = body + data[at : at + size], at + size + 2
    raise _Unclear


def _options(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    named = b",".join(value for name, value in fields if name.lower() == b"connection")
    return {option.strip(b" \t").lower() for option in named.split(b",")}


def _request(head: h11.Request, body: bytes) -> Meaning:
    target, host = bytes(head.target), dict(head.headers).get(b"host", b"")
    if not target.startswith((b"/", b"*")):
        host, slash, rest = target.partition(b"://")[2].partition(b"/")
        if b"?" in host:
            host, _, query = target.partition(b"://")[2].partition(b"?")
            slash, rest = b"/", b"?" + query
        target = slash + rest
        if not target:
            target = b"*" if head.method == b"OPTIONS" else b"/"
    path, mark, query = target.partition(b"?")
    start = f"{head.method.decode()} {resolved(path)!r} {mark + query!r}"
    return Meaning(start, host.lower(), end_to_end(list(head.headers)), body)


def resolved(path: bytes) -> bytes:
    """A path decoded once, without dot segments and doubled slashes."""
    if path == b"*":
        return path
    out: list[bytes] = []
    segments = unquote_to_bytes(path).split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del out[-1:]
        elif segment not in (b"", b"."):
            out.append(segment)
    slash = b"/" if out and segments[-1] in (b"", b".", b"..") else b""
    return b"/" + b"/".join(out) + slash


def end_to_end(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, bytes]]:
    """The fields that go all the way, lower-case and sorted: of the others each hop has its own."""
    nominated = {option.decode("latin-1") for option in _options(fields)}
    found: list[tuple[str, bytes]] = []
    for name, value in fields:
        lower = name.decode("latin-1").lower()
        if lower.replace("_", "-") in SET_BY_PROXY | HOP_BY_HOP or lower in nominated or lower == "x-toska-error":
            continue
        found.append((lower, value.strip(b" \t")))
    return sorted(found)

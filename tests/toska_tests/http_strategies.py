"""Messages for fuzz tests: proper ones, then damaged, then cut into pieces as a network does."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from toska_tests.raw_http import chunks

PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b", b"\x7f", b"\xff", b"%2e", b"%2F", b"%5c",
    b"%00", b"%", b"//", b"/../", b"/.", b"\\", b"?", b"#", b"@", b"*", b"_", b"0", b"1", b"5", b"-", b"+", b"0x",
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"chunked", b"gzip, ", b"identity",
    b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", b"Host: evil\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"content-length:3\r\n", b"Content_Length: 9\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: content-length, host\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"X-Forwarded-For: 1.2.3.4\r\n",
    b" folded\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n",
]  # fmt: skip

TARGETS = [
    "/", "/a/b", "/a?b=c&d=%2f", "/a/../b//c/./d/", "/%7Ea/%41%20b", "/caf%C3%A9;x=1", "http://other:81/x?y", "http://o?q",
    "*", "/a%252e%252e/b", "/..%3b/a", "//evil.test/a", "/a?http://x/",
]  # fmt: skip
FIELDS = [
    "Accept: */*", "X-A: 1", "x-a:2", "X-Empty:", "Cookie: a=b; c=d", "X-Odd:  \t spaced out\t ", "TE: trailers",
    "Connection: keep-alive", "Connection: x-a, close", "X_Real_IP: 10.0.0.1", "Via: 1.0 edge", "Referer: http://x/?a#b",
    "X-Latin: caf\xe9",
]  # fmt: skip
TRAILERS = [b"", b"", b"X-T: 1\r\n", b"Content-Length: 5\r\nHost: evil\r\n"]


@dataclass(frozen=True)
class Damage:
    """One change of a byte string; `at` is its place in thousandths."""

    kind: int
    at: int
    piece: bytes
    length: int

    def done_to(self, data: bytes) -> bytes:
        """The changed bytes."""
        place = self.at * len(data) // 1000
        before, after = data[:place], data[place:]
        match self.kind:
            case 0:
                return before + self.piece + after
            case 1:
                return before + after[self.length :]
            case 2:
                return before + self.piece + after[len(self.piece) :]
            case 3:  # a line said twice
                start, end = data.rfind(b"\r\n", 0, place) + 2, data.find(b"\r\n", place) + 2
                return data[:start] + data[start:end] * 2 + data[end:] if 1 < start < end else data
            case 4 | 5 | 6:  # at the beginning of a line, where fields and chunks are
                start = data.rfind(b"\r\n", 0, place) + 2
                return data[:start] + self.piece + data[start:]
            case 7:  # a line's end taken away
                end = data.find(b"\r\n", place)
                return data[:end] + data[end + 2 :] if end >= 0 else data
            case _:
                return before + bytes([(after or b"\0")[0] ^ (1 << self.length % 8)]) + after[1:]


FRAMING = [
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 1, 1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Host: evil\r\n", b"\r\n",
]  # fmt: skip
"""What lengths and targets hang on: drawn as often as all the others together."""
DAMAGE = st.builds(
    Damage,
    st.integers(0, 8),
    st.integers(0, 1000),
    st.one_of(st.sampled_from(FRAMING), st.sampled_from(PIECES)),
    st.integers(1, 6),
)
BODIES = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(PIECES)), max_size=4)


@st.composite
def _framed(draw: Any, lines: Sequence[str], *, bodiless: bool) -> bytes:
    pieces, framing = draw(BODIES), draw(st.sampled_from(["length", "chunked"] if bodiless is False else ["none"]))
    head = "\r\n".join([*lines, ""]).encode("latin-1")
    if framing == "none":
        return head + b"\r\n"
    if framing == "length":
        body = b"".join(pieces)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    extension = draw(st.sampled_from([b"", b"", b";a=b", b' ;a="\x7e"']))
    return (
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + chunks(pieces, extension=extension, trailers=draw(st.sampled_from(TRAILERS)))
    )


@st.composite
def request_bytes(draw: Any) -> bytes:
    """One proper request."""
    method = draw(st.sampled_from(["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"]))
    target = draw(st.sampled_from(TARGETS if method == "OPTIONS" else [one for one in TARGETS if one != "*"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *draw(st.lists(st.sampled_from(FIELDS), max_size=4))]
    bodiless = version == "1.0" or draw(st.booleans())
    return draw(_framed(lines, bodiless=bodiless))


@st.composite
def response_bytes(draw: Any) -> bytes:
    """One proper response, perhaps with interim ones before it."""
    interim = draw(st.sampled_from([b"", b"", b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"]))
    status = draw(st.sampled_from(["200 OK", "200 OK", "404 Not Found", "204 No Content", "304 Not Modified", "500"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    lines = [f"HTTP/{version} {status}", *draw(st.lists(st.sampled_from(FIELDS), max_size=4))]
    bodiless = version == "1.0" or status[:3] in ("204", "304") or draw(st.integers(0, 5)) == 0
    return interim + draw(_framed(lines, bodiless=bodiless))


def damaged(messages: st.SearchStrategy[bytes], *, most: int) -> st.SearchStrategy[bytes]:
    """Some messages in a row, with up to three changes."""

    def damage(parts: tuple[list[bytes], list[Damage]]) -> bytes:
        data = b"".join(parts[0])
        for change in parts[1]:
            data = change.done_to(data)
        return data

    return st.tuples(st.lists(messages, min_size=1, max_size=most), st.lists(DAMAGE, max_size=3)).map(damage)


CUTS = st.lists(st.integers(0, 1000), max_size=6)
"""Where a byte string is cut, in thousandths."""


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    edges = sorted({0, len(data), *(at * len(data) // 1000 for at in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]

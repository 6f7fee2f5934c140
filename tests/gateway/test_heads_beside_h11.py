"""Heads that we accept, h11 has to accept as well, and to understand in the same way; we may be stricter."""

import random

import h11
import pytest
from toska_gateway.worker.http1 import CHUNKED, BadMessage, read_request, read_response
from toska_tests.raw_http import chunks, get, request, response

REQUESTS = [
    get("/a/b?c=d", "Accept: */*", "Cookie: a=b; c=d"),
    get("http://other/a"),
    get("/", "Connection: keep-alive, x-a", "X-A: 1", version="HTTP/1.0", host=None),
    get("/", "Connection: upgrade", "Upgrade: websocket"),
    request("HEAD", "/"),
    request("POST", "/", body=b"hello world"),
    request("POST", "/", body=b"hello world", version="HTTP/1.0", host=None),
    request("POST", "/", "Transfer-Encoding: chunked") + chunks([b"hello"]),
    request("PUT", "/", "Expect: 100-continue", "content-length: 3") + b"abc",
]
RESPONSES = [
    response(200, "content-type: text/plain", body=b"hello"),
    response(200, "transfer-encoding: chunked", "connection: close", length=False),
    response(304, "etag: x", "content-length: 5", length=False),
    response(404, length=False),
    response(204, "x-a: b", length=False),
]
PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\x00", b"\xff", b"%2e", b"//", b"../", b"1", b"-", b"+",
    b"%00", b"_", b"%", b"?", b"#", b"HTTP/1.1", b"HTTP/1.0", b"chunked", b"Host: x\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"0\r\n\r\n", b"\r\n\r\n",
]  # fmt: skip


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The head of `data` with up to three changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(changed) + 1)
        piece = chance.choice(PIECES)
        match chance.randrange(5):
            case 0:
                changed[at:at] = piece
            case 1:
                del changed[at : at + chance.randint(1, 4)]
            case 2:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                changed[at:at] = changed[max(0, at - chance.randint(1, 30)) : at]
            case _:
                changed[at : at + len(piece)] = piece
    return bytes(changed[: changed.find(b"\r\n\r\n") + 4])


def framing(message: h11.Request | h11.Response | h11.InformationalResponse) -> int | None:
    """The length that h11 sees: bytes, CHUNKED, or none given."""
    named = dict(message.headers)
    if b"transfer-encoding" in named:
        return CHUNKED
    return int(named[b"content-length"]) if b"content-length" in named else None


@pytest.mark.parametrize("seed", range(4))
def test_requests_that_we_accept_are_to_h11_the_same_requests(seed: int) -> None:
    chance = random.Random(seed)
    accepted = 0
    for _ in range(4000):
        data = mutated(chance, chance.choice(REQUESTS))
        try:
            head = read_request(data, 100, 8192)
        except BadMessage:
            continue
        accepted += 1
        other = h11.Connection(h11.SERVER)
        other.receive_data(data)
        event = other.next_event()
        assert isinstance(event, h11.Request), data
        assert event.method == head.method, data
        assert (framing(event) or 0) == head.body_length, data
    assert accepted > 500


@pytest.mark.parametrize("seed", range(4))
def test_responses_that_we_accept_are_to_h11_the_same_responses(seed: int) -> None:
    chance = random.Random(seed)
    accepted = 0
    for _ in range(4000):
        data = mutated(chance, chance.choice(RESPONSES))
        try:
            head = read_response(data, bodiless=False)
        except BadMessage:
            continue
        accepted += 1
        other = h11.Connection(h11.CLIENT)
        other.send(h11.Request(method="GET", target="/", headers=[("host", "test")]))
        other.send(h11.EndOfMessage())
        other.receive_data(data)
        event = other.next_event()
        assert isinstance(event, h11.Response | h11.InformationalResponse), data
        assert event.status_code == head.status, data
        if head.status >= 200 and head.status not in (204, 304):
            assert framing(event) == head.body_length, data
    assert accepted > 500

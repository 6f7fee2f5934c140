"""Requests that are none, or too much: refused with their own answer and a closed connection, and never forwarded."""

import asyncio
import gc
import json
from collections import Counter

import pytest
from toska_tests.gateways import Gateway, plane_here, route, single
from toska_tests.raw_http import Client, Conversation, CutOff, chunks, connected, get, request, upstream
from toska_tests.waiting import in_time, unless_late, wait_until

POST = "POST / HTTP/1.1\r\nHost: test\r\n"
GET = "GET / HTTP/1.1\r\nHost: test\r\n"

HEADS = {
    "no version": (400, "GET /\r\n\r\n"),
    "an empty line too many": (400, "\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a space before the line": (400, " " + GET + "\r\n"),
    "two spaces": (400, "GET  / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "tabs": (400, "GET\t/\tHTTP/1.1\r\nHost: test\r\n\r\n"),
    "a lower-case version": (400, "GET / http/1.1\r\nHost: test\r\n\r\n"),
    "RTSP": (400, "DESCRIBE / RTSP/1.0\r\nHost: test\r\n\r\n"),
    "a TLS hello": (400, "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    "a NUL in the line": (400, "GET /\x00 HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a bare LF after the line": (400, "GET / HTTP/1.1\nHost: test\r\n\r\n"),
    "a bare LF after a field": (400, GET + "X-A: 1\nX-B: 2\r\n\r\n"),
    "a bare CR after the line": (400, "GET / HTTP/1.1\rHost: test\r\n\r\n"),
    "a bare CR in a field": (400, GET + "X-A: 1\rX-B: 2\r\n\r\n"),
    "a CR at a field's end": (400, GET + "X-A: 1\r\r\n\r\n"),
    "a NUL in a field": (400, GET + "X-A: a\x00b\r\n\r\n"),
    "a control character in a field": (400, GET + "X-A: a\x08b\r\n\r\n"),
    "a folded field": (400, GET + "X-A: 1\r\n folded\r\n\r\n"),
    "a folded first field": (400, "GET / HTTP/1.1\r\n Host: test\r\n\r\n"),
    "a space before a colon": (400, GET + "X-A : 1\r\n\r\n"),
    "a field without a colon": (400, GET + "X-A\r\n\r\n"),
    "a field without a name": (400, GET + ": 1\r\n\r\n"),
    "a bad name": (400, GET + "X(A): 1\r\n\r\n"),
    "no Host": (400, "GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, GET + "Host: test\r\n\r\n"),
    "two Hosts of HTTP/1.0": (400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    "an empty Host": (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    "a bad Host": (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a Host with user information": (400, "GET / HTTP/1.1\r\nHost: u@test\r\n\r\n"),
    "a bad Host under an absolute target": (400, "GET http://test/ HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "an absolute target with user information": (400, "GET http://u@test/ HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a relative target": (400, "GET a HTTP/1.1\r\nHost: test\r\n\r\n"),
    "an asterisk": (400, "GET * HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a fragment": (400, "GET /#a HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a raw backslash": (400, "GET /\\a HTTP/1.1\r\nHost: test\r\n\r\n"),
    "an escaped slash": (400, "GET /a%2fb HTTP/1.1\r\nHost: test\r\n\r\n"),
    "an escaped backslash": (400, "GET /a%5Cb HTTP/1.1\r\nHost: test\r\n\r\n"),
    "an escaped NUL": (400, "GET /%00 HTTP/1.1\r\nHost: test\r\n\r\n"),
    "an escaped slash beside a dot segment": (400, "GET /a/..%2fb HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a broken escape": (400, "GET /%zz HTTP/1.1\r\nHost: test\r\n\r\n"),
    "raw UTF-8": (400, "GET /\xc3\xa9 HTTP/1.1\r\nHost: test\r\n\r\n"),
    "both lengths": (400, POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "both lengths, the other way": (400, POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "repeated lengths": (400, POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "different lengths": (400, POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "listed lengths": (400, POST + "Content-Length: 5, 5\r\n\r\nhello"),
    "a signed length": (400, POST + "Content-Length: +5\r\n\r\nhello"),
    "a negative length": (400, POST + "Content-Length: -5\r\n\r\nhello"),
    "a hexadecimal length": (400, POST + "Content-Length: 0x5\r\n\r\nhello"),
    "an underscored length": (400, POST + "Content-Length: 1_0\r\n\r\nhello"),
    "an empty length": (400, POST + "Content-Length:\r\n\r\nhello"),
    "an overflowing length": (400, POST + "Content-Length: 18446744073709551621\r\n\r\nhello"),
    "chunked twice": (400, POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked on two lines": (
        400,
        POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunked not last": (400, POST + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "no chunked": (400, POST + "Transfer-Encoding: identity\r\n\r\n"),
    "an empty coding": (400, POST + "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"),
    "a coding with a parameter": (400, POST + "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    "a coding with a vertical tab": (400, POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "a coding in HTTP/1.0": (
        400,
        "POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "another coding": (501, POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "an unknown method": (501, "BREW / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "a lower-case method": (501, "get / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "CONNECT": (501, "CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n"),
    "HTTP/2's preface": (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.2": (505, "GET / HTTP/1.2\r\nHost: test\r\n\r\n"),
    "HTTP/0.9 with its version": (505, "GET / HTTP/0.9\r\n\r\n"),
    "an unknown expectation": (417, POST + "Expect: something\r\nContent-Length: 5\r\n\r\nhello"),
    "a target over its limit": (414, f"GET /{'a' * 9000} HTTP/1.1\r\nHost: test\r\n\r\n"),
    "too many fields": (431, GET + "X-A: 1\r\n" * 100 + "\r\n"),
    "too many fields that are not passed on": (431, GET + "TE: x\r\n" * 100 + "\r\n"),
    "a field over the limit": (431, GET + f"X-A: {'a' * 70_000}\r\n\r\n"),
    "a body over the limit": (413, POST + "Content-Length: 100001\r\n\r\n" + "x" * 10),
}
"""By what is wrong: the status of the refusal, and the request."""

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("problem", HEADS)
async def test_a_bad_head_is_refused_and_nothing_of_it_is_forwarded(gateway: Gateway, problem: str) -> None:
    status, message = HEADS[problem]
    async with upstream() as app:
        await gateway.serve({**single(app.port, limits={"body_bytes": 100_000})})
        for data in (message, message + SMUGGLED):
            async with connected(gateway.address) as client:
                client.post(data.encode("latin-1"))
                await assert_refused(client, status)
        assert app.conversations == []
        await gateway.until_quiet()


async def assert_refused(client: Client, status: int) -> None:
    """The one and only answer is a problem document with this status, and the connection ends."""
    answer = await client.response()
    assert answer.status == status
    assert answer.value("connection") == b"close"
    assert answer.value("content-type") == b"application/problem+json"
    problem = json.loads(answer.body)
    assert problem["status"] == status
    assert problem["type"] == f"/problems/{answer.error}"
    assert await client.is_closed()


@pytest.mark.parametrize(
    "problem", ["two Hosts", "both lengths", "a bare LF after a field", "too many fields", "an empty line too many"]
)
async def test_a_bad_head_is_refused_however_it_arrives(gateway: Gateway, problem: str) -> None:
    status, message = HEADS[problem]
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for byte in message.encode("latin-1"):
                client.post(bytes([byte]))
                await asyncio.sleep(0)
            await assert_refused(client, status)
        assert app.conversations == []


async def test_a_bad_request_behind_a_good_one_is_refused_in_its_turn(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            client.post(get("/good") + b"GET /bad HTTP/1.1\r\n\r\n" + SMUGGLED.encode())
            assert (await client.response()).body == b"ok"
            await assert_refused(client, 400)
        assert [message.target for message in app.requests] == ["/good"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_refusal_ends_where_its_length_says(gateway: Gateway, method: str) -> None:
    await gateway.serve({})
    async with connected(gateway.address) as client:
        client.post(f"{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n".encode())
        answer = await client.response(to=method)
        assert answer.status == 400
        assert await client.to_end() == b""


BODIES = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal": b"xyz\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a prefixed size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size too large": b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a chunk too short": b"6\r\nhello\r\n0\r\n\r\n",
    "a chunk too long": b"4\r\nhello\r\n0\r\n\r\n",
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF after the chunk": b"5\r\nhello\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 100_000,
    "a bad trailer": b"5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
    "a trailer with a bare LF": b"5\r\nhello\r\n0\r\nX: 1\n\r\n",
    "endless trailers": b"5\r\nhello\r\n0\r\n" + b"X: aaaaaaaaaa\r\n" * 10_000,
}


@pytest.mark.parametrize("problem", BODIES)
async def test_a_bad_body_is_refused_and_what_was_begun_upstream_is_broken_off(gateway: Gateway, problem: str) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            # The first chunk is good, so the head and it have been forwarded when the error comes.
            client.post(request("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
            await wait_until(lambda: b"3\r\nabc\r\n" in app.received or bool(app.requests))
            client.post(BODIES[problem] + SMUGGLED.encode())
            await assert_refused(client, 400)
        await gateway.until_quiet()
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/next"))).status == 200
        assert b"smuggled" not in app.received
        assert len(app.conversations) == 2  # the one that was broken off is not used again
        assert not app.conversations[0].received.endswith(b"0\r\n\r\n")


async def test_a_bad_body_under_a_response_breaks_the_connection_off(gateway: Gateway) -> None:
    async with upstream() as app:

        async def script(conversation: Conversation) -> None:
            await conversation.request_head()
            await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
            await conversation.until_closed()

        app.script = script
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", "Transfer-Encoding: chunked"))
            await client.head()
            await client.send(b"xyz\r\n")
            with pytest.raises((CutOff, ConnectionError)):
                await client.exactly(10)
        await gateway.until_quiet()


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("where", ["server", "route"])
async def test_a_body_over_the_limit_is_refused(gateway: Gateway, where: str, coding: str) -> None:
    def message(size: int) -> bytes:
        if coding == "length":
            return request("POST", body=b"x" * size)
        return request("POST", "/", "Transfer-Encoding: chunked") + chunks([b"x" * 100] * (size // 100))

    async with upstream() as app:
        document = single(app.port, limits={"body_bytes": "1000B"} if where == "server" else {})
        if where == "route":
            document["routes"] = [route("all", policies={"body": {"max_bytes": 1000}})]
        await gateway.serve(document)
        async with connected(gateway.address) as client:
            assert (await client.ask(message(1000))).status == 200
            client.post(message(1100))
            await assert_refused(client, 413)
        await gateway.until_quiet()
        assert [len(message.body) for message in app.requests if message.body] == [1000]


async def test_a_route_may_allow_a_larger_body_than_the_server(gateway: Gateway) -> None:
    async with upstream() as app:
        document = single(app.port, limits={"body_bytes": 10}, policies={"body": {"max_bytes": "1KiB"}})
        await gateway.serve(document)
        async with connected(gateway.address) as client:
            assert (await client.ask(request("POST", body=b"x" * 1024))).status == 200


@pytest.mark.parametrize(
    ("begun", "status"),
    [(b"GET / HT", 408), (GET.encode(), 408), (b"", None), (b"\r\n", None)],
    ids=["half a line", "half a head", "nothing", "an empty line"],
)
async def test_a_head_that_does_not_come_is_not_waited_for(gateway: Gateway, begun: bytes, status: int | None) -> None:
    await gateway.serve({"server": {"limits": {"header_timeout": "200ms", "idle_timeout": "200ms"}}})

    async def refused() -> None:
        async with connected(gateway.address) as client:
            client.post(begun)
            if status is not None:
                answer = await client.response()
                assert (answer.status, answer.error) == (status, "request-timeout")
            assert await client.is_closed()

    await unless_late(refused, limit_s=2 * 0.2)  # or its time was over before the first byte came


async def test_a_head_in_drops_has_no_longer_than_one_at_once(gateway: Gateway) -> None:
    await gateway.serve({"server": {"limits": {"header_timeout": "300ms"}}})

    async def drip(client: Client) -> None:
        client.post(GET.encode())
        while True:
            client.post(b"X-A: 1\r\n")
            await asyncio.sleep(0.05)

    async def refused() -> None:
        async with connected(gateway.address) as client, asyncio.TaskGroup() as group:
            dripping = group.create_task(drip(client))
            answer = await client.response()
            dripping.cancel()
            assert answer.status == 408

    await in_time(refused, limit_s=1.5)


@pytest.mark.parametrize("part", [b"", b"hello"], ids=["none of it", "half of it"])
async def test_a_body_that_does_not_come_is_not_waited_for(gateway: Gateway, part: bytes) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, limits={"body_timeout": "200ms"}))
        async with connected(gateway.address) as client:
            client.post(request("POST", "/", "Content-Length: 10") + part)
            answer = await client.response()
            assert (answer.status, answer.error) == (408, "request-timeout")
            assert await client.is_closed()
        await gateway.until_quiet()


async def test_a_connection_without_requests_is_closed_in_time(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, limits={"idle_timeout": "200ms"}))
        async with connected(gateway.address) as client:
            assert (await client.ask(get())).status == 200
            assert await client.is_closed()


async def test_bad_requests_are_counted(gateway: Gateway) -> None:
    await gateway.serve({})
    before = await gateway.metric("bad_requests_total")
    async with connected(gateway.address) as client:
        client.post(b"GET /\r\n\r\n")
        await assert_refused(client, 400)
    assert await gateway.metric("bad_requests_total") == before + 1


async def test_requests_leave_no_garbage_that_only_the_collector_finds() -> None:
    """Workers let the cycle collector rest, so connections and requests must be freed without it."""
    async with upstream() as app, plane_here(single(app.port)) as (_, address):

        async def traffic() -> None:
            for message in (get(), request("POST", body=b"x"), b"GET /bad\r\n\r\n", get("/", "X-A: " + "a" * 5000)):
                async with connected(address) as client:
                    await client.send(message)
                    await client.response()

        await traffic()
        gc.collect()
        gc.disable()
        try:
            before = gateway_objects()
            for _ in range(20):
                await traffic()

            def left() -> dict[str, int]:
                now = gateway_objects()
                return {name: now[name] - before.get(name, 0) for name in now if now[name] > before.get(name, 0) + 3}

            await wait_until(lambda: not left(), what="the last connections to be closed, and nothing left of them")
        finally:
            gc.enable()


def gateway_objects() -> dict[str, int]:
    """How many objects of the worker's classes there are."""
    return Counter(
        type(o).__name__ for o in gc.get_objects() if str(type(o).__module__).startswith("toska_gateway.worker")
    )

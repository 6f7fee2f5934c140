"""Upstreams that break the protocol, break off, or do not answer: the client is told, never given a short whole."""

import asyncio
import json
import time

import pytest
from toska_tests.gateways import Gateway, route, single
from toska_tests.raw_http import (
    OK,
    Client,
    Conversation,
    CutOff,
    Script,
    Upstream,
    answering,
    ask,
    connected,
    get,
    request,
    response,
    upstream,
)
from toska_tests.waiting import wait_until

SMUGGLED = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled"

RESPONSES = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no status line": b"hello\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status under 100": b"HTTP/1.1 042 OK\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nx-a: 1\nx-b: 2\r\ncontent-length: 0\r\n\r\n",
    "a bare CR": b"HTTP/1.1 200 OK\r\nx-a: 1\rx-b: 2\r\ncontent-length: 0\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nx-a: \x00\r\ncontent-length: 0\r\n\r\n",
    "a fold": b"HTTP/1.1 200 OK\r\nx-a: 1\r\n fold\r\ncontent-length: 0\r\n\r\n",
    "a space before a colon": b"HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello",
    "no colon": b"HTTP/1.1 200 OK\r\nx-a\r\ncontent-length: 0\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20_000,
    "a switch nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    "interim responses without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000,
}


@pytest.mark.parametrize("problem", RESPONSES)
async def test_a_bad_response_is_a_bad_gateway_and_its_connection_is_not_used_again(
    gateway: Gateway, problem: str
) -> None:
    async with upstream(answering(RESPONSES[problem] + SMUGGLED, OK)) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            answer = await client.ask(get())
            assert (answer.status, answer.error) == (502, "bad-upstream-response")
            assert answer.value("content-type") == b"application/problem+json"
            assert json.loads(answer.body)["detail"]
        await gateway.until_quiet()
        app.script = answering(OK)
        async with connected(gateway.address) as client:
            assert (await client.ask(get())).body == b"ok"
        assert len(app.conversations) == 2


BODIES = {
    "no size": b"xyz\r\n",
    "a chunk too short": b"6\r\nhello\r\n0\r\n\r\n",
    "a bare LF": b"5\nhello\n0\n\n",
    "an endless extension": b"5;" + b"a" * 100_000,
    "a bad trailer": b"5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
}


@pytest.mark.parametrize("problem", BODIES)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_a_body_that_goes_wrong_is_cut_off_for_the_client_too(
    gateway: Gateway, problem: str, version: str
) -> None:
    reply = response(200, "transfer-encoding: chunked", length=False) + b"3\r\nabc\r\n" + BODIES[problem]
    async with upstream(reply) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            with pytest.raises((CutOff, ConnectionError)):
                await client.ask(get(version=version))
        await gateway.until_quiet()


async def closing(conversation: Conversation) -> None:
    """Close in order."""
    await conversation.aclose()


async def resetting(conversation: Conversation) -> None:
    """Break off."""
    conversation.reset()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("length", closing),
        ("length", resetting),
        ("chunked", closing),
        ("chunked", resetting),
        ("chunked, before the last", closing),
        ("chunked, before the last", resetting),
        ("until close", resetting),
    ],
)
async def test_a_body_that_breaks_off_never_looks_whole_to_the_client(
    gateway: Gateway, kind: str, version: str, end: Script
) -> None:
    sent = {
        "length": response(200, "content-length: 10", length=False) + b"hello",
        "chunked": response(200, "transfer-encoding: chunked", length=False) + b"a\r\nhello",
        "chunked, before the last": response(200, "transfer-encoding: chunked", length=False) + b"5\r\nhello\r\n",
        "until close": response(200, length=False) + b"hello",
    }[kind]

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(sent)
        await arrived.wait()  # a reset overtakes what is on its way
        await end(conversation)

    arrived = asyncio.Event()
    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(get(version=version))
            head = await client.head()
            assert head.status == 200
            assert b"hello" in await client.some()
            arrived.set()
            with pytest.raises((CutOff, ConnectionError)):
                if head.value("transfer-encoding"):
                    await client.chunked()
                else:
                    # Without a coding it is for the length to show that this is no end, or else for a reset.
                    rest = await client.to_end()
                    raise CutOff if head.value("content-length") and len(rest) < 5 else AssertionError(rest)
        await gateway.until_quiet()


async def test_a_response_that_breaks_off_in_its_head_is_a_bad_gateway(gateway: Gateway) -> None:
    for part in (b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 100 Continue\r\n\r\n", b"H"):

        async def script(conversation: Conversation, part: bytes = part) -> None:
            await conversation.request()
            await conversation.send(part)

        async with upstream(script) as app:
            await gateway.serve(single(app.port))
            async with connected(gateway.address) as client:
                answer = await client.ask(request("POST", body=b"x"))
                assert (answer.status, answer.error) == (502, "upstream-reset")
            assert len(app.requests) == 1


async def test_a_head_that_comes_byte_by_byte_is_read_as_one(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        for byte in response(200, "x-long: " + "a" * 2000, body=b"ok"):
            await conversation.send(bytes([byte]))
            await asyncio.sleep(0)

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.body, answer.value("x-long")) == (200, b"ok", b"a" * 2000)


async def silent(conversation: Conversation) -> None:
    """Take what comes, and say nothing."""
    await conversation.until_closed()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_upstream_that_does_not_answer_is_a_gateway_timeout(gateway: Gateway, method: str) -> None:
    async with upstream(silent) as app:
        await gateway.serve(single(app.port, policies={"response_timeout": "200ms"}))
        async with connected(gateway.address) as client:
            for _ in range(2):
                answer = await client.ask(request(method, body=b"x" if method == "POST" else None))
                assert (answer.status, answer.error) == (504, "upstream-timeout")
        await gateway.until_quiet()
        assert len(app.conversations) == 2


async def test_a_timeout_never_comes_early(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await asyncio.sleep(0.07)  # within the timeout below, though not by much
            await conversation.send(OK)

    async def in_time_or_late(client: Client) -> int:
        """The status; a machine that is busy makes the answer come after the timeout, which is no error of ours."""
        sent = time.monotonic()
        status = (await client.ask(get())).status
        assert status == 200 or (status == 504 and time.monotonic() - sent >= 0.1)
        return status

    async with upstream(script) as app:
        for policies in ({"response_timeout": "100ms"}, {"timeout": "100ms"}):
            await gateway.serve(single(app.port, policies=policies))
            async with connected(gateway.address) as client:

                async def came(client: Client = client) -> bool:
                    return await in_time_or_late(client) == 200

                for _ in range(5):
                    await wait_until(came, what="a machine that is not too busy")


async def test_a_body_that_stops_coming_is_cut_off(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={"idle_timeout": "200ms"}))
        async with connected(gateway.address) as client:
            with pytest.raises((CutOff, ConnectionError)):
                await client.ask(get())
        await gateway.until_quiet()


async def test_the_timeout_of_a_route_covers_the_request_from_its_head_to_the_responses_end(gateway: Gateway) -> None:
    async def dripping(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await conversation.send(b"x")
            await asyncio.sleep(0.02)

    async with upstream(dripping) as app:
        await gateway.serve(single(app.port, policies={"timeout": "600ms"}))

        async def cut_off() -> bool:
            async with asyncio.timeout(15), connected(gateway.address) as client:
                try:
                    answer = await client.ask(get())
                except (CutOff, ConnectionError):
                    return True
                assert answer.status == 504  # the machine took the time in which the response was to begin
                return False

        await wait_until(cut_off, what="a response that begins in time")
        app.script = silent
        async with asyncio.timeout(15), connected(gateway.address) as client, asyncio.TaskGroup() as group:
            uploading = group.create_task(drip(client))
            answer = await client.response()
            uploading.cancel()
            assert answer.status in (408, 504)
        await gateway.until_quiet()


async def drip(client: Client) -> None:
    """Upload a body drop by drop."""
    client.post(request("POST", "/", "content-length: 1000"))
    while True:
        client.post(b"x")
        await asyncio.sleep(0.02)


async def test_what_an_upstream_says_without_being_asked_is_never_taken_for_an_answer(gateway: Gateway) -> None:
    async with upstream(answering(OK + SMUGGLED)) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(5):
                assert (await client.ask(get())).body == b"ok"
        assert len(app.conversations) == 5


async def test_a_banner_before_the_request_is_a_failure(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.send(SMUGGLED)
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            answer = await client.ask(request("POST", body=b"x"))
            # What came after the request had been sent cannot be told from an answer to it.
            assert answer.body == b"smuggled" or answer.error == "upstream-reset"
        await gateway.until_quiet()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_body_where_there_may_be_none_is_never_passed_on(gateway: Gateway, method: str) -> None:
    reply = SMUGGLED if method == "HEAD" else response(204, length=False) + SMUGGLED
    async with upstream(reply) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            answer = await client.ask(request(method), to=method)
            assert answer.status in (200, 204)
            app.script = answering(OK)
            assert (await client.ask(get())).body == b"ok"


async def test_many_interim_responses_at_once_are_passed_on(gateway: Gateway) -> None:
    async with upstream(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 90 + OK) as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, get())
        assert (len(answer.interim), answer.body) == (90, b"ok")


async def test_route_and_status_are_counted_for_failures_too(gateway: Gateway) -> None:
    app = Upstream(answering(b"garbage\r\n\r\n"))
    await app.open()
    await gateway.serve({**single(app.port), "routes": [route("failing")]})
    await ask(gateway.address, get())
    assert await gateway.metric("requests_total", route="failing", status="502") == 1
    await app.stop()
    await app.aclose()

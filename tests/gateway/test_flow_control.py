"""Back-pressure both ways: whoever is slow slows the other side down, and the worker's memory stays flat."""

import asyncio
import hashlib

import psutil
import pytest
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.plane import Plane
from toska_tests.gateways import Gateway, plane_here, route, single
from toska_tests.raw_http import OK, Conversation, CutOff, ask, connected, get, request, upstream
from toska_tests.waiting import wait_until

MB = 1 << 20
PIECE = bytes(range(256)) * 256  # 64 KiB
LARGE = 50 * MB


def memory(gateway: Gateway) -> int:
    """Bytes of memory that the only worker holds."""
    return psutil.Process(gateway.pids()[0]).memory_info().rss


async def still(read: list[int]) -> None:
    """Wait until a count has stopped growing."""
    last = -1
    while read[0] != last:
        last = read[0]
        await asyncio.sleep(0.1)  # a standstill shows only over time


async def sending(total: int, conversation: Conversation, sent: list[int]) -> None:
    """Send so many bytes as fast as they are taken."""
    while sent[0] < total:
        await conversation.send(PIECE)
        sent[0] += len(PIECE)


async def test_a_large_response_streams_through_flat_memory_at_the_pace_of_a_slow_reader(gateway: Gateway) -> None:
    sent = [0]

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        await sending(LARGE, conversation, sent)

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        before = memory(gateway)
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: sent[0] > 0)
            await still(sent)
            assert sent[0] < 20 * MB  # what fits into sockets' buffers, not what there is
            assert memory(gateway) - before < 8 * MB
            assert (await client.head()).value("content-length") == b"%d" % LARGE
            assert await client.skip(LARGE) == hashlib.sha256(PIECE * (LARGE // len(PIECE))).digest()
        assert memory(gateway) - before < 8 * MB


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_large_request_streams_through_flat_memory_at_the_pace_of_a_slow_upstream(
    gateway: Gateway, coding: str
) -> None:
    proceed = asyncio.Event()
    digests: list[bytes] = []

    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await proceed.wait()
        if coding == "chunked":
            digests.append(hashlib.sha256(await conversation.chunked()).digest())
            conversation.received.clear()
        else:
            digests.append(await conversation.skip(LARGE))
        await conversation.send(OK)

    fields = f"content-length: {LARGE}" if coding == "length" else "transfer-encoding: chunked"
    piece = PIECE if coding == "length" else b"10000\r\n" + PIECE + b"\r\n"
    sent = [0]

    async def feed() -> None:
        while sent[0] < LARGE:
            async with asyncio.timeout(30):
                await client.send(piece)
            sent[0] += len(PIECE)
        if coding == "chunked":
            await client.send(b"0\r\n\r\n")

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        before = memory(gateway)
        async with connected(gateway.address) as client, asyncio.TaskGroup() as group:
            await client.send(request("POST", "/", fields))
            feeding = group.create_task(feed())
            await wait_until(lambda: sent[0] > 0)
            await still(sent)
            assert sent[0] < 20 * MB
            assert memory(gateway) - before < 8 * MB
            proceed.set()
            await feeding
            assert (await client.response()).status == 200
        assert digests == [hashlib.sha256(PIECE * (LARGE // len(PIECE))).digest()]
        assert memory(gateway) - before < 8 * MB


async def test_a_body_that_came_before_its_connection_was_there_is_held_back_too(gateway: Gateway) -> None:
    """The first bytes fill the fresh connection at once; the pause that this causes has to hold."""
    proceed = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await proceed.wait()
        await conversation.until_closed()

    sent = [0]

    async def feed() -> None:
        while True:
            await client.send(PIECE)
            sent[0] += len(PIECE)

    async with upstream(script, window=4096) as app:
        await gateway.serve(single(app.port))
        before = memory(gateway)
        async with connected(gateway.address) as client, asyncio.TaskGroup() as group:
            await client.send(request("POST", "/", f"content-length: {LARGE}") + PIECE * 8)
            feeding = group.create_task(feed())
            await wait_until(lambda: sent[0] > 0)
            await still(sent)
            assert sent[0] < 20 * MB
            assert memory(gateway) - before < 8 * MB
            feeding.cancel()
        proceed.set()


async def test_pipelined_requests_wait_while_their_client_does_not_read(gateway: Gateway) -> None:
    body = PIECE * 2  # one read of the gateway, one write: over its mark, and done
    asked = 400
    async with upstream(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as app:
        await gateway.serve(single(app.port))
        before = memory(gateway)
        async with connected(gateway.address) as client:
            await client.send(get() * asked)
            await wait_until(lambda: bool(app.requests))
            count = [0]
            while count[0] != len(app.requests):
                count[0] = len(app.requests)
                await asyncio.sleep(0.1)  # a standstill shows only over time
            assert count[0] < 100
            assert memory(gateway) - before < 8 * MB
            for _ in range(asked):
                assert (await client.response()).body == body
            client.received.clear()


async def test_pipelined_requests_that_the_gateway_answers_itself_wait_too(gateway: Gateway) -> None:
    large = "x" * 60_000
    answer = {"name": "self", "match": {"path_prefix": "/"}, "respond": {"body": large}}
    await gateway.serve({"routes": [answer]})
    asked = 3000
    before = memory(gateway)
    async with connected(gateway.address) as client, asyncio.TaskGroup() as group:
        sent = group.create_task(client.send(get() * asked))
        served = [-1.0]
        while served[0] != (now := await gateway.metric("requests_total", route="self")):
            served[0] = now
            await asyncio.sleep(0.1)  # a standstill shows only over time
        assert served[0] < 500
        assert memory(gateway) - before < 8 * MB
        await sent
        for _ in range(asked):
            assert len((await client.response()).body) == len(large)
            client.received.clear()


async def test_a_connection_whose_response_outran_its_reader_serves_the_next_request() -> None:
    """Back in the pool, a connection must be read again, whatever its last client is still doing."""
    body = PIECE * 2
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with upstream(answer) as app, plane_here(single(app.port)) as (plane, address):
        endpoint = plane.clusters["app"].endpoints[f"127.0.0.1:{app.port}"]
        async with connected(address, window=4096) as slow:
            sent = 0
            while unsent(plane) <= 64 * 1024:  # what is not read fills the kernel's buffers first, then the gateway's
                await slow.send(get())
                sent += 1
                await until_idle(endpoint, sent)
            assert (await ask(address, get())).body == body
            assert len(app.conversations) == 1
            for _ in range(sent):
                assert (await slow.response()).body == body
            assert (await slow.ask(get())).body == body


async def until_idle(endpoint: Endpoint, requests: int) -> None:
    """Wait until so many requests have been answered."""
    await wait_until(lambda: endpoint.requests == requests and bool(endpoint.idle), every=0.001)


def unsent(plane: Plane) -> int:
    """Bytes that a plane's clients have not taken yet."""
    return sum(downstream.transport.get_write_buffer_size() for downstream in plane.downstreams)


async def test_a_reader_that_rests_gets_the_whole_response_also_when_the_connection_closes_after_it() -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while more := await wanted.get():
            await conversation.send(b"%x\r\n%b\r\n" % (more, PIECE[:more]))
        await conversation.send(b"0\r\n\r\n")

    wanted: asyncio.Queue[int] = asyncio.Queue()
    async with (
        upstream(script) as app,
        plane_here(single(app.port)) as (plane, address),
        connected(address, window=4096) as client,
    ):
        await client.send(get("/", "connection: close"))
        assert (await client.head()).value("connection") == b"close"
        pieces = 0
        while not unsent(plane):
            wanted.put_nowait(32 * 1024)
            pieces += 1
            await asyncio.sleep(0.005)  # lets it come through
        wanted.put_nowait(0)
        await wait_until(lambda: not plane.clusters["app"].endpoints[f"127.0.0.1:{app.port}"].in_flight)
        # The last bytes wait in the gateway. The client rests longer than one that owes nothing may linger.
        await asyncio.sleep(2.5)
        assert await client.chunked() == PIECE[: 32 * 1024] * pieces
        assert await client.is_closed()


async def test_a_reader_that_takes_nothing_is_cut_off_when_the_idle_timeout_is_over(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        await sending(LARGE, conversation, [0])

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={"idle_timeout": "300ms"}))
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: bool(app.requests))
            await gateway.until_quiet()
            with pytest.raises((CutOff, ConnectionError)):
                await client.response()


async def test_a_large_body_is_refused_without_its_rest_being_read_for_long(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve({**single(app.port), "routes": [route("all", policies={"body": {"max_bytes": "1KiB"}})]})
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", f"content-length: {LARGE}") + PIECE)
            answer = await client.response()
            assert (answer.status, answer.error) == (413, "body-too-large")
            assert await client.is_closed()
        assert app.requests == []

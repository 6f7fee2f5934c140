"""Switching protocols: WebSocket through the gateway with a real client and server, and what may not pass."""

import asyncio

import pytest
from toska_tests.gateways import Gateway, single
from toska_tests.raw_http import OK, Conversation, answering, chunks, connected, get, request, upstream
from toska_tests.waiting import unless_late, wait_until
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

ALLOWED = {"upgrade": ["websocket"]}
ASKING = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-a: 1\r\n\r\n"


async def echo(connection: ServerConnection) -> None:
    """Send back what comes."""
    async for message in connection:
        await connection.send(message)


async def test_websocket_messages_of_any_size_pass_both_ways(gateway: Gateway) -> None:
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await gateway.serve(single(port, policies=ALLOWED))
        host, own = gateway.address
        async with connect(f"ws://{host}:{own}/chat?x=1", max_size=None) as client:
            for message in ("hello", b"\x00\xff", "x" * 3_000_000, ""):
                await client.send(message)
                assert await client.recv() == message
            assert await gateway.active() == 1
            await client.ping()
        await gateway.until_quiet()
    assert await gateway.metric("requests_total", route="all", status="101") >= 1


async def test_the_close_of_a_websocket_reaches_the_other_side(gateway: Gateway) -> None:
    seen: list[int | None] = []

    async def closing(connection: ServerConnection) -> None:
        if connection.request is not None and connection.request.path == "/server":
            await connection.close(4001, "enough")
            return
        try:
            await connection.recv()
        except ConnectionClosed as closed:
            seen.append(None if closed.rcvd is None else closed.rcvd.code)

    async with serve(closing, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await gateway.serve(single(port, policies=ALLOWED))
        url = "ws://{}:{}".format(*gateway.address)
        async with connect(f"{url}/server") as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
        async with connect(f"{url}/client") as client:
            await client.close(4002)
        await wait_until(lambda: bool(seen))
        assert seen == [4002]
        await gateway.until_quiet()


async def test_a_route_that_does_not_allow_it_passes_on_a_plain_request(gateway: Gateway) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await gateway.serve(single(port))
        with pytest.raises(InvalidStatus) as refused:
            await connect("ws://{}:{}".format(*gateway.address)).__aenter__()
        assert refused.value.response.status_code == 426
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", *ASKING))).status == 200
        assert not {"connection", "upgrade"} & set(app.requests[0].names())


@pytest.mark.parametrize("upgrade", ["h2c", "websocket, h2c", "TLS/1.0", "foo"])
async def test_other_protocols_are_never_switched_to(gateway: Gateway, upgrade: str) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            fields = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAAQAAP__")
            assert (await client.ask(get("/", *fields))).status == 200
        assert not {"connection", "upgrade", "http2-settings"} & set(app.requests[0].names())


@pytest.mark.parametrize("answered", ["h2c", "", "websocket, h2c", "foo"])
async def test_a_switch_to_another_protocol_than_the_one_asked_for_is_the_upstreams_fault(
    gateway: Gateway, answered: str
) -> None:
    switching = f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {answered}\r\n\r\n".encode()
    async with upstream(switching) as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            answer = await client.ask(get("/", *ASKING))
            assert (answer.status, answer.error) == (502, "bad-upstream-response")
        assert len(app.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        request("POST", "/", *ASKING, body=b"x"),
        request("POST", "/", *ASKING),
        request("GET", "/", *ASKING, "transfer-encoding: chunked") + chunks([b"x"]),
        get("/", *ASKING, version="HTTP/1.0"),
    ],
    ids=["a body", "another method", "a chunked body", "HTTP/1.0"],
)
async def test_nothing_but_a_plain_get_asks_for_a_switch(gateway: Gateway, message: bytes) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            assert (await client.ask(message)).status == 200
        assert not {"connection", "upgrade"} & set(app.requests[0].names())


async def test_a_refused_switch_leaves_the_connections_in_use(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            for _ in range(2):
                assert (await client.ask(get("/", *ASKING))).body == b"ok"
        assert app.requests[0].value("upgrade") == b"websocket"
        assert len(app.conversations) == 1


async def test_bytes_that_come_with_the_heads_of_a_switch_are_not_lost(gateway: Gateway) -> None:
    early_came = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await early_came.wait()
        await conversation.send(SWITCHING + b"first")
        await conversation.send(await conversation.exactly(5))

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            # A client that does not wait for the switch: its bytes are the tunnel's, and no request.
            client.post(get("/", *ASKING) + b"ea")
            await wait_until(lambda: bool(app.requests))
            await client.send(b"rly")
            early_came.set()
            answer = await client.response()
            assert (answer.status, answer.value("x-a")) == (101, b"1")
            assert await client.exactly(10) == b"firstearly"


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("how", ["half-close", "close", "reset"])
async def test_the_end_of_one_side_ends_the_tunnel_without_losing_what_is_under_way(
    gateway: Gateway, first: str, how: str
) -> None:
    ended = asyncio.Event()
    got: list[bytes] = []

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(SWITCHING)
        if first == "upstream":
            await conversation.send(b"x" * 100_000)
            if how == "half-close":
                conversation.end_writing()
                got.append(await conversation.to_end())
            elif how == "reset":
                await conversation.exactly(1)
                conversation.reset()
        else:
            try:
                got.append(await conversation.to_end())
                if how == "half-close":
                    await conversation.send(b"y" * 100_000)
            except ConnectionError:
                got.append(b"")
        ended.set()

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies=ALLOWED))
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", *ASKING))).status == 101
            if first == "upstream":
                assert await client.exactly(100_000) == b"x" * 100_000
                if how == "reset":
                    await client.send(b"!")
                assert await client.is_closed()
                if how == "half-close":
                    await client.send(b"z" * 100_000)
                    client.end_writing()
            else:
                await client.send(b"z" * 100_000)
                if how == "half-close":
                    client.end_writing()
                    assert await client.exactly(100_000) == b"y" * 100_000
                    assert await client.is_closed()
                elif how == "reset":
                    await wait_until(lambda: len(app.conversations[0].received) > 100_000)
                    client.reset()
                else:
                    await client.aclose()
            await asyncio.wait_for(ended.wait(), 20)
            if how != "reset" and (first, how) != ("upstream", "close"):
                assert got == [b"z" * 100_000]
            if (first, how) == ("upstream", "close"):
                client.end_writing()  # the gateway cannot tell a close from a half-close, so it is the client's turn
            # Nobody is left to close it, so a tunnel that still stood would stand until its idle timeout.
            await gateway.until_quiet()


async def test_a_silent_tunnel_is_closed_when_its_idle_timeout_is_over(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(SWITCHING)
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={**ALLOWED, "idle_timeout": "20ms"}))  # ten times that
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", *ASKING))).status == 101
            assert await client.is_closed()
        await gateway.until_quiet()


async def test_a_tunnel_outlives_the_timeout_of_its_request(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(SWITCHING)
        while data := await conversation.some():
            await conversation.send(data)

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={**ALLOWED, "timeout": "400ms"}))

        async def talk() -> None:
            async with connected(gateway.address) as client:
                assert (await client.ask(get("/", *ASKING))).status == 101
                for _ in range(8):
                    await client.send(b"ping")
                    assert await client.exactly(4) == b"ping"
                    await asyncio.sleep(0.1)  # longer in all than the timeout

        await unless_late(talk, limit_s=8 * 0.1 + 0.4)  # or it was the tunnel's beginning that took too long


async def test_an_upstream_that_never_switches_is_a_gateway_timeout(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={**ALLOWED, "response_timeout": "100ms"}))
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", *ASKING))).status == 504
            app.script = answering(OK)

            async def serves() -> bool:
                answer = await client.ask(get())
                assert answer.status in (200, 504)  # in the time that an answer has, the machine may stand still
                return answer.status == 200

            await wait_until(serves, what="an answer in time on the same connection")

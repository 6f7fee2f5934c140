"""What a TLS connection does once it is open: how it ends, what tunnels through it, what it costs while it waits."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest
from toska_gateway.worker.certificates import ServerContexts
from toska_gateway.worker.downstream import Downstream
from toska_gateway.worker.opening import Door, Opening
from toska_gateway.worker.tls_layer import TlsLayer
from toska_tests.certificates import Authority
from toska_tests.gateways import Gateway, plane_here, running_gateway, single
from toska_tests.raw_http import (
    PATIENCE_S,
    Conversation,
    ask,
    connect,
    connected,
    get,
    request,
    response,
    upstream,
)
from toska_tests.waiting import wait_until

CONNECTIONS = 400
KIB_EACH = 48
"""What an idle TLS connection may cost a worker: OpenSSL's share, ours, and room for a page that is begun."""


class TlsClient:
    """A TLS client over a plain socket, whose every record and end is the test's own."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="a.example")

    async def _do(self, step: Any, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = step(*arguments)
            except ssl.SSLWantReadError:
                found = None
            if self.outgoing.pending:
                await loop.sock_sendall(self.plain, self.outgoing.read())
            if found is not None:
                return found
            async with asyncio.timeout(PATIENCE_S):
                data = await loop.sock_recv(self.plain, 65536)
            if not data:
                raise EOFError
            self.incoming.write(data)

    async def shake(self) -> None:
        """Do the handshake."""

        def step() -> bool:
            self.tls.do_handshake()
            return True

        await self._do(step)

    async def send(self, data: bytes) -> None:
        """Send plain bytes."""
        await self._do(self.tls.write, data)

    async def read(self) -> bytes:
        """Plain bytes; empty after close_notify.

        Raises:
            EOFError: The connection ended without one.
        """
        try:
            return await self._do(self.tls.read, 65536)
        except ssl.SSLZeroReturnError:
            return b""

    async def read_until(self, end: bytes) -> bytes:
        """Everything up to `end`."""
        found = b""
        while not found.endswith(end):
            piece = await self.read()
            assert piece, f"close_notify after {found!r}"
            found += piece
        return found

    async def say_end(self) -> None:
        """Send close_notify, and nothing else."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        await asyncio.get_running_loop().sock_sendall(self.plain, self.outgoing.read())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def client_of(gateway: Gateway, authority: Authority, version: str = "1.3") -> AsyncGenerator[TlsClient]:
    """A client that has shaken hands."""
    context = authority.client_context()
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    with socket.socket() as plain:
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, gateway.address)
        client = TlsClient(plain, context)
        await client.shake()
        yield client


def secured(port: int, authority: Authority, **policies: Any) -> dict[str, Any]:
    document = single(port, policies=policies)
    document["server"]["tls"] = authority.issue("a", "a.example").words()
    return document


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_an_end_in_order_is_said_before_the_connection_closes(authority: Authority, version: str) -> None:
    async with (
        upstream() as app,
        running_gateway(secured(app.port, authority)) as gateway,
        client_of(gateway, authority, version) as client,
    ):
        await client.send(get("/", "connection: close"))
        assert (await client.read_until(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        assert await client.read() == b""  # close_notify
        client.plain.close()
        await gateway.until_quiet()


async def test_a_body_that_was_cut_off_upstream_is_never_ended_in_order(authority: Authority) -> None:
    async def cut_off(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response(200, "content-length: 1000", length=False, body=b"x" * 10))
        conversation.reset()

    async with (
        upstream(cut_off) as app,
        running_gateway(secured(app.port, authority)) as gateway,
        client_of(gateway, authority) as client,
    ):
        await client.send(get(version="HTTP/1.0"))
        await client.read_until(b"x" * 10)
        with pytest.raises((EOFError, ConnectionError)):
            await client.read()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_a_client_that_has_said_all_it_will_still_gets_its_answer(authority: Authority, version: str) -> None:
    async def slow(conversation: Conversation) -> None:
        await conversation.request()
        await released.wait()
        await conversation.send(response(200, body=b"late"))
        await conversation.until_closed()

    released = asyncio.Event()
    async with (
        upstream(slow) as app,
        running_gateway(secured(app.port, authority)) as gateway,
        client_of(gateway, authority, version) as client,
    ):
        await client.send(get())
        await client.say_end()
        await wait_until(lambda: len(app.requests) == 1, what="the request")
        released.set()
        assert (await client.read_until(b"late")).startswith(b"HTTP/1.1 200")
        await gateway.until_quiet()


@pytest.mark.parametrize("end", ["close_notify", "fin", "reset"])
async def test_a_request_whose_body_is_cut_off_never_reaches_the_upstream_as_whole(
    authority: Authority, end: str
) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.exactly(50)
        half.set()
        await conversation.exactly(50)
        whole.append(True)

    half, whole = asyncio.Event(), list[bool]()
    async with upstream(script) as app, running_gateway(secured(app.port, authority)) as gateway:
        async with client_of(gateway, authority) as client:
            await client.send(request("POST", "/", "content-length: 100"))
            await client.send(b"x" * 50)
            async with asyncio.timeout(PATIENCE_S):
                await half.wait()
            if end == "close_notify":
                await client.say_end()
            elif end == "fin":
                client.plain.shutdown(socket.SHUT_WR)
            else:
                client.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                client.plain.close()
            await gateway.until_quiet()
        assert whole == []


async def test_a_tunnel_goes_on_one_way_when_the_other_has_ended(authority: Authority) -> None:
    async def echo(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        )
        conversation.end_writing()
        while data := await conversation.some():
            heard.append(data)

    heard: list[bytes] = []
    async with (
        upstream(echo) as app,
        running_gateway(secured(app.port, authority, upgrade=["websocket"])) as gateway,
        client_of(gateway, authority) as client,
    ):
        await client.send(get("/", "connection: upgrade", "upgrade: websocket"))
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await client.read() == b""  # the upstream's end, as close_notify
        await client.send(b"still here")
        await wait_until(lambda: b"".join(heard) == b"still here", what="the client's half")
        await client.say_end()
        client.plain.shutdown(socket.SHUT_WR)
        await gateway.until_quiet()


async def test_requests_are_pipelined_through_one_record_and_one_request_through_many(authority: Authority) -> None:
    async with (
        upstream() as app,
        running_gateway(secured(app.port, authority)) as gateway,
        client_of(gateway, authority) as client,
    ):
        await client.send(get("/1") + get("/2") + get("/3"))
        answers = b""
        while answers.count(b"\r\n\r\nok") < 3:
            answers += await client.read()
        for byte in get("/4"):
            await client.send(bytes([byte]))
        await client.read_until(b"\r\n\r\nok")
        assert [each.target for each in app.requests] == ["/1", "/2", "/3", "/4"]


@pytest.mark.parametrize("garbage", [b"\x17\x03\x03\x00\x10" + b"g" * 16, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"])
async def test_what_is_no_record_ends_an_open_connection(authority: Authority, garbage: bytes) -> None:
    async with (
        upstream() as app,
        running_gateway(secured(app.port, authority)) as gateway,
        client_of(gateway, authority) as client,
    ):
        await asyncio.get_running_loop().sock_sendall(client.plain, garbage)
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await client.read()
        await gateway.until_quiet()
        assert app.requests == []


async def test_requests_in_flight_are_finished_over_tls_when_workers_are_renewed(authority: Authority) -> None:
    async with upstream() as app, running_gateway(secured(app.port, authority)) as gateway:
        context = authority.client_context()
        stop = asyncio.Event()
        served = 0

        async def keep_asking() -> None:
            nonlocal served
            while not stop.is_set():
                answer = await ask(gateway.address, get(), tls=context, name="a.example")
                assert answer.status == 200
                served += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(keep_asking())
            before = gateway.pids()
            await gateway.supervisor.renew()
            await wait_until(lambda: gateway.pids() != before, what="new workers")
            stop.set()
        assert served > 0


async def test_connections_leave_nothing_to_the_collector(authority: Authority) -> None:
    """Workers let it run rarely, so what it alone could free would pile up."""
    pair = authority.issue("a", "a.example")
    shown: dict[str, Any] = {
        "certificate": pair.certificate.read_text(),
        "key": pair.key.read_text(),
        "names": ["a.example"],
    }
    material: dict[str, Any] = {"pairs": [shown], "client": None, "min_version": "1.2", "unknown_names": "default"}
    context = authority.client_context()
    async with plane_here(single(1)) as (plane, _):
        plane.server_tls = ServerContexts(material, bytes(32))
        door = Door(plane, {"tls": True, "proxy_protocol": False, "redirect": 0, "unix": False})
        server = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        gc.collect()
        gc.disable()
        try:
            address = server.sockets[0].getsockname()
            for _ in range(5):
                assert (await ask(address, get(), tls=context, name="a.example")).status == 502
                async with connected(address) as client:
                    await client.send(b"\x16\x03\x01garbage, and no handshake")
                    with contextlib.suppress(ConnectionError):
                        await client.to_end()
            await wait_until(lambda: not plane.downstreams, what="no connection")
            await wait_until(lambda: not _alive(TlsLayer, Opening, Downstream), what="nothing left of the connections")
        finally:
            gc.enable()
            server.close()


def _alive(*kinds: type) -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@pytest.mark.alone
async def test_an_idle_connection_costs_little_memory(authority: Authority) -> None:
    async with upstream() as app, running_gateway(secured(app.port, authority)) as gateway:
        context = authority.client_context()
        async with connected(gateway.address, tls=context, name="a.example") as first:
            await first.ask(get())
        (worker,) = gateway.pids()
        before = psutil.Process(worker).memory_info().rss
        clients = [await connect(gateway.address, tls=context, name="a.example") for _ in range(CONNECTIONS)]
        try:
            for client in clients:
                assert (await client.ask(get())).status == 200
            each = (psutil.Process(worker).memory_info().rss - before) / CONNECTIONS / 1024
            print(f"{each:.1f} KiB for an idle TLS connection")
            assert each < KIB_EACH
        finally:
            for client in clients:
                await client.aclose()

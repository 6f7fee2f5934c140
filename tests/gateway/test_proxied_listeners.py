"""The PROXY protocol over real connections: who is believed, and what the rest of the gateway takes the client for."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from toska_tests.certificates import Authority
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import Message, ask, connected, get, upstream
from toska_tests.waiting import wait_until

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 8]) + bytes([198, 51, 100, 1]) + b"\x9c\x40\x01\xbb"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
TRUSTED: dict[str, Any] = {"proxy_protocol": {"trusted_peers": ["127.0.0.0/8"]}}


def proxied(port: int, **server: Any) -> dict[str, Any]:
    """Everything goes to one upstream; connections begin with a PROXY header from loopback."""
    document = single(port, limits=server.pop("limits", {}))
    document["server"] |= TRUSTED | server
    return document


@pytest.mark.parametrize(
    ("header", "client"),
    [(V1, b"192.0.2.7"), (V2, b"192.0.2.8"), (LOCAL, b"127.0.0.1"), (b"PROXY UNKNOWN\r\n", b"127.0.0.1")],
)
async def test_the_header_s_client_is_who_asks(header: bytes, client: bytes) -> None:
    async with upstream() as app, running_gateway(proxied(app.port)) as gateway:
        assert (await ask(gateway.address, header + get())).status == 200
        assert app.requests[0].value("x-forwarded-for") == client
        assert app.requests[0].value("x-forwarded-proto") == b"http"


async def test_the_header_may_come_byte_by_byte_and_requests_follow_on_the_connection() -> None:
    async with upstream() as app, running_gateway(proxied(app.port)) as gateway, connected(gateway.address) as client:
        for byte in V2 + get():
            await client.send(bytes([byte]))
        assert (await client.response()).status == 200
        assert (await client.ask(get())).status == 200
        assert [request.value("x-forwarded-for") for request in app.requests] == [b"192.0.2.8"] * 2


async def test_nobody_else_is_let_in() -> None:
    document = proxied(1)
    document["server"]["proxy_protocol"] = {"trusted_peers": ["192.0.2.0/24"]}
    async with running_gateway(document) as gateway:
        async with connected(gateway.address) as client:
            client.post(V1 + get())
            assert await client.is_closed()
        assert await gateway.metric("refused_total") == 1


@pytest.mark.parametrize("bytes_", [get(), b"PROXY TCP4 1.2.3.4\r\n", V2[:13] + b"\x99" + V2[14:], b"\x16\x03\x01" * 9])
async def test_a_connection_without_a_proper_header_is_refused(bytes_: bytes) -> None:
    async with upstream() as app, running_gateway(proxied(app.port)) as gateway:
        async with connected(gateway.address) as client:
            client.post(bytes_)
            assert await client.is_closed()
        await gateway.until_quiet()
        assert app.received == b""


async def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    document = proxied(1, limits={"handshake_timeout": "200ms"})
    async with running_gateway(document) as gateway:
        async with connected(gateway.address) as silent, connected(gateway.address) as slow:
            await slow.send(V1[:10])
            assert await silent.is_closed()
            assert await slow.is_closed()
        await gateway.until_quiet()


async def test_limits_per_client_are_those_of_the_client_and_not_of_the_load_balancer() -> None:
    limits = {"connections_per_client": 1}
    async with upstream() as app, running_gateway(proxied(app.port, limits=limits)) as gateway:
        async with connected(gateway.address) as first, connected(gateway.address) as second:
            assert (await first.ask(V1 + get())).status == 200
            assert (await second.ask(V2 + get())).status == 200
            async with connected(gateway.address) as third:
                third.post(V1 + get())
                assert await third.is_closed()
        await gateway.until_quiet()


async def test_trusted_proxies_are_those_that_the_header_names() -> None:
    document = proxied(1, trusted_proxies=["192.0.2.7/32"])
    async with upstream() as app, running_gateway() as gateway:
        document["clusters"]["app"]["endpoints"][0]["port"] = app.port
        await gateway.serve(document)
        for header in (V1, V2):
            await ask(gateway.address, header + get("/", "x-forwarded-for: 203.0.113.9"))
        chains = [request.value("x-forwarded-for") for request in app.requests]
        assert chains == [b"203.0.113.9, 192.0.2.7", b"192.0.2.8"]


async def test_the_header_stands_before_the_tls_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("a", "a.example").words()
    async with upstream() as app, running_gateway(proxied(app.port, tls=tls)) as gateway:
        for header in (V1, V2):
            answer = await _over_tls(gateway, header, authority.client_context())
            assert answer.startswith(b"HTTP/1.1 200")
        assert [one.value("x-forwarded-for") for one in app.requests] == [b"192.0.2.7", b"192.0.2.8"]
        assert [one.value("x-forwarded-proto") for one in app.requests] == [b"https", b"https"]
        plain: Message = await ask(gateway.address, V1 + get())
        assert (plain.status, plain.error) == (400, "https-required")


async def _over_tls(gateway: Gateway, header: bytes, context: ssl.SSLContext) -> bytes:
    """Send the header and the first record in one write, as a load balancer may."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    async with connected(gateway.address) as client:
        sent = header
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client.send(sent + outgoing.read())
                sent = b""
                incoming.write(await client.some())
        tls.write(get())
        await client.send(outgoing.read())
        while True:
            incoming.write(await client.some())
            try:
                return tls.read(65536)
            except ssl.SSLWantReadError:
                continue


async def test_one_listener_may_be_left_out() -> None:
    listen = ["127.0.0.1:0", "127.0.0.1:0?proxy_protocol=off"]
    async with upstream() as app, running_gateway(proxied(app.port), listen=listen) as gateway:
        assert (await ask(("127.0.0.1", gateway.port(0)), V1 + get())).status == 200
        assert (await ask(("127.0.0.1", gateway.port(1)), get())).status == 200


async def test_a_load_balancer_that_leaves_before_the_header_is_whole_is_forgotten() -> None:
    async with running_gateway(proxied(1)) as gateway:
        for part in (b"", V1[:5], V2[:14]):
            async with connected(gateway.address) as client:
                await client.send(part)
                client.reset()
        async with connected(gateway.address) as client:
            await client.send(V1[:5])
            client.end_writing()
            assert await client.is_closed()
        await gateway.until_quiet()
        await wait_until(lambda: _none_left(gateway), what="no connection")


async def _none_left(gateway: Gateway) -> bool:
    return await gateway.metric("connections") == 0

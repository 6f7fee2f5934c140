"""The Consul port's short way: the same answers as the long way gives, in their order, and never for what is odd."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from toska_common.server import bind, serve
from toska_discovery.app import CONSUL, REST, create_service
from toska_discovery.consul.protocol import ConsulProtocol, read_plain
from toska_discovery.settings import Settings
from toska_tests.discovery_rig import RunningDiscovery, discovery_in
from toska_tests.raw_http import Client, Message, connected

HOST = b"Host: localhost\r\n"
LONG_WAY = b"Trailer: x-none\r\n"
"""A field about framing: harmless, and enough for the long way."""
PASSING = b"/v1/health/service/orders?passing"


@pytest.fixture(scope="module")
async def discovery(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningDiscovery]:
    async with discovery_in(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
async def client(discovery: RunningDiscovery) -> AsyncGenerator[Client]:
    """A connection to the Consul port of a registry that knows one instance of `orders`."""
    async with connected(("127.0.0.1", discovery.settings.consul_port)) as opened:
        body = json.dumps({"Name": "orders", "ID": "orders-1", "Port": 9000, "Check": {"TTL": "60s"}}).encode()
        head = b"PUT /v1/agent/service/register HTTP/1.1\r\n" + HOST + _token(discovery)
        registered = await opened.ask(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert registered.status == 200
        assert (await opened.ask(_renewal(discovery))).status == 200
        yield opened


def _token(discovery: RunningDiscovery) -> bytes:
    return b"X-Consul-Token: " + discovery.credentials.admin.encode() + b"\r\n"


def _get(target: bytes, fields: bytes = HOST) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n"


def _renewal(discovery: RunningDiscovery, fields: bytes = b"") -> bytes:
    target = b"/v1/agent/check/pass/service:orders-1"
    return b"PUT " + target + b" HTTP/1.1\r\n" + HOST + _token(discovery) + fields + b"Content-Length: 0\r\n\r\n"


def _without_date(answer: Message) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    return answer.start, sorted(field for field in answer.fields if field[0] != b"date"), answer.body


@pytest.mark.parametrize(
    "target",
    [
        PASSING,
        b"/v1/health/service/orders",
        b"/v1/health/service/orders?tag=none&stale",
        b"/v1/health/service/nobody?passing",
        b"/v1/health/checks/orders",
        b"/v1/health/state/any",
        b"/v1/catalog/service/orders",
        b"/v1/catalog/services",
        b"/v1/kv/none",
        b"/v1/health/service/orders?stale&consistent",
        b"/v1/health/service/orders?dc=elsewhere",
        b"/v1/health/service/orders?pretty",
        b"/v1/agent/self",
        b"/v1/none",
    ],
)
async def test_both_ways_give_the_same_answer(client: Client, target: bytes) -> None:
    assert read_plain(_get(target)) is not None
    assert read_plain(_get(target, HOST + LONG_WAY)) is None
    short = await client.ask(_get(target))
    long = await client.ask(_get(target, HOST + LONG_WAY))
    assert _without_date(short) == _without_date(long)
    assert short.value("date") is not None


async def test_both_ways_take_a_renewal_and_refuse_a_stranger(client: Client, discovery: RunningDiscovery) -> None:
    short = await client.ask(_renewal(discovery))
    long = await client.ask(_renewal(discovery, LONG_WAY))
    assert _without_date(short) == _without_date(long)
    assert short.status == 200
    stranger = b"PUT /v1/agent/check/fail/service:orders-1 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
    assert (await client.ask(stranger)).status == 403
    assert len(json.loads((await client.ask(_get(PASSING))).body)) == 1


async def test_an_unknown_host_is_refused_by_both_ways(client: Client) -> None:
    for fields in (b"Host: evil.example\r\n", b"Host: evil.example\r\n" + LONG_WAY):
        assert (await client.ask(_get(PASSING, fields))).status == 403


async def test_requests_in_one_piece_are_answered_in_their_order(client: Client) -> None:
    await client.send(_get(PASSING) + _get(b"/v1/catalog/services") + _get(b"/v1/status/leader"))
    bodies = [json.loads((await client.response()).body) for _ in range(3)]
    assert [type(body) for body in bodies] == [list, dict, str]


async def test_a_request_in_pieces_goes_the_long_way_and_the_next_one_the_short(client: Client) -> None:
    whole = _get(PASSING)
    for cut in (1, 20, len(whole) - 1):
        await client.send(whole[:cut])
        assert (await client.ask(whole[cut:])).status == 200
        assert (await client.ask(whole)).status == 200


async def test_what_looks_like_a_request_inside_another_is_none(client: Client, discovery: RunningDiscovery) -> None:
    """The rest of a head, or a body, that came in a piece of its own and would be plain as a request."""
    await client.send(b"GET /v1/catalog/services HTTP/1.1\r\nX-Part: ")
    await _until_read(discovery)
    services = await client.ask(_get(PASSING))
    assert isinstance(json.loads(services.body), dict)
    body = _get(PASSING)
    await client.send(
        b"PUT /v1/kv/part HTTP/1.1\r\n" + HOST + _token(discovery) + b"Content-Length: %d\r\n\r\n" % len(body)
    )
    await _until_read(discovery)
    assert (await client.ask(body)).body == b"true"
    assert (await client.ask(_get(b"/v1/kv/part?raw"))).body == body


async def test_a_request_behind_a_blocked_one_waits_for_its_turn(client: Client, discovery: RunningDiscovery) -> None:
    index = (await client.ask(_get(PASSING))).value("x-consul-index")
    assert index is not None
    await client.send(_get(PASSING + b"&wait=200ms&index=" + index))
    await _until_read(discovery)
    await client.send(_get(b"/v1/catalog/services"))
    bodies = [json.loads((await client.response()).body) for _ in range(2)]
    assert [type(body) for body in bodies] == [list, dict]


async def _until_read(discovery: RunningDiscovery) -> None:
    """Return once the port has read what was sent to it: it has been round all its connections since."""
    async with connected(("127.0.0.1", discovery.settings.consul_port)) as other:
        for _ in range(3):
            await other.ask(_get(b"/v1/status/leader"))


@pytest.mark.parametrize(
    "data",
    [
        _get(PASSING)[:-1],
        _get(PASSING) + b"G",
        _get(PASSING) + _get(PASSING),
        _get(PASSING).replace(b"GET", b"HEAD"),
        _get(PASSING).replace(b"GET", b"get"),
        _get(PASSING).replace(b"HTTP/1.1", b"HTTP/1.0"),
        _get(PASSING).replace(b" HTTP", b"  HTTP"),
        _get(PASSING).replace(b"\r\n", b"\n"),
        _get(b"http://localhost" + PASSING),
        _get(b"/v1//catalog/services"),
        _get(b"/v1/catalog/service/%61"),
        _get(b"/v1/catalog/service/a?tag=a b"),
        _get(b"/v1/catalog/service/a#b"),
        _get(b"/v1/catalog/service/\xc3\xa9"),
        _get(PASSING, HOST + HOST),
        _get(PASSING, HOST + b"Content-Length: 1\r\n"),
        _get(PASSING, HOST + b"Content-Length: 0\r\nContent-Length: 0\r\n"),
        _get(PASSING, HOST + b"Transfer-Encoding: chunked\r\n"),
        _get(PASSING, HOST + b"Connection: close\r\n"),
        _get(PASSING, HOST + b"Connection: upgrade\r\n"),
        _get(PASSING, HOST + b"Expect: 100-continue\r\n"),
        _get(PASSING, HOST + b" folded\r\n"),
        _get(PASSING, HOST + b"no colon\r\n"),
        _get(PASSING, HOST + b"spaced : x\r\n"),
        _get(PASSING, HOST + b"x: \x00\r\n"),
        _get(PASSING, HOST + b"x: a\rb\r\n"),
        _get(PASSING, HOST + b"x: \xe9\r\n"),
        _get(PASSING, HOST + b"x: " + b"a" * 4096 + b"\r\n"),
    ],
)
def test_what_is_not_plain_in_every_byte_goes_the_long_way(data: bytes) -> None:
    assert read_plain(data) is None


def test_a_plain_request_is_read_to_the_letter() -> None:
    read = read_plain(_get(PASSING + b"&tag=%61", HOST + b"X-Tag:\t a b \r\nConnection: keep-alive\r\nEmpty:\r\n"))
    fields = {b"host": b"localhost", b"x-tag": b"a b", b"connection": b"keep-alive", b"empty": b""}
    assert read == ("GET", "/v1/health/service/orders", b"passing&tag=%61", fields)


class _Impatient(ConsulProtocol):
    """Connections that may be idle for a moment only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.timeout_keep_alive = 0.3  # pyright: ignore[reportAttributeAccessIssue] - uvicorn counts whole seconds


async def test_a_connection_in_use_stays_and_an_idle_one_is_closed(tmp_path: Path) -> None:
    """The short way sets no timer, so the one that runs has to ask when the connection was last used."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(bind("127.0.0.1", 0)) for name in (REST, CONSUL)}
        ports = {name: opened.getsockname()[1] for name, opened in sockets.items()}
        service = create_service(Settings(home=tmp_path, port=ports[REST], consul_port=ports[CONSUL]))
        rest, consul = service.listeners
        service.listeners = [rest, replace(consul, protocol=_Impatient)]
        async with anyio.create_task_group() as group:
            await group.start(partial(serve, service, sockets))
            async with connected(("127.0.0.1", ports[CONSUL])) as client:
                until = time.monotonic() + 0.8
                while time.monotonic() < until:
                    assert (await client.ask(_get(PASSING))).status == 200
                assert await client.is_closed()
            group.cancel_scope.cancel()

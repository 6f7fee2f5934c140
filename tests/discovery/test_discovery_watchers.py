"""A thousand blocked watchers: woken by one change, released by a stop, forgotten when they leave."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_discovery.app import CONSUL
from toska_discovery.consul.app import ConsulApi
from toska_tests.discovery_rig import RunningDiscovery, discovery_in
from toska_tests.waiting import unhindered_s, wait_until

WATCHERS = 1000
LEASE = (TTLCheck(timedelta(seconds=30)),)


@pytest.fixture
async def discovery(tmp_path: Path) -> AsyncGenerator[RunningDiscovery]:
    async with discovery_in(tmp_path) as running:
        yield running


def blocked(discovery: RunningDiscovery) -> int:
    """How many queries are blocked."""
    (api,) = (listener.app for listener in discovery.service.listeners if listener.name == CONSUL)
    assert isinstance(api, ConsulApi)
    assert api.endpoints is not None
    return api.endpoints.registry.watchers.blocked


@asynccontextmanager
async def connections(discovery: RunningDiscovery, count: int) -> AsyncGenerator[list[SocketStream]]:
    """Bare connections to the Consul port: a real client for each would cost more than what is tested."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", discovery.settings.consul_port))
            for _ in range(count)
        ]


async def ask(streams: Sequence[SocketStream], path: str) -> None:
    request = f"GET /v1/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    for stream in streams:
        await stream.send(request)


async def read_answers(streams: Sequence[SocketStream]) -> list[tuple[int, bytes]]:
    """The status and the body of one answer of each."""
    answers: list[tuple[int, bytes]] = []
    for stream in streams:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-l"))
        while len(body) < length:
            body += await stream.receive()
        answers.append((int(head.split(b" ")[1]), body))
    return answers


async def index_of(discovery: RunningDiscovery, name: str) -> int:
    async with ConsulClient.open(discovery.consul) as consul:
        return (await consul.health_service(name))[1]


@pytest.mark.alone
async def test_one_change_is_told_to_a_thousand_watchers_soon(discovery: RunningDiscovery) -> None:
    async with (
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
        connections(discovery, WATCHERS) as streams,
    ):
        await consul.register_service(ServiceRegistration("watched", checks=LEASE))

        async def soon() -> bool:
            await consul.pass_check("service:watched")
            index = await index_of(discovery, "watched")
            await ask(streams, f"health/service/watched?passing&index={index}&wait=60s")
            await wait_until(lambda: blocked(discovery) == WATCHERS)
            with anyio.fail_after(20):
                began = unhindered_s()
                await consul.fail_check("service:watched")
                answers = await read_answers(streams)
                took = unhindered_s() - began
            assert set(answers) == {(200, b"[]")}
            assert blocked(discovery) == 0
            # A figure for a quiet machine is in the benches; here clients and registry share one loop and core.
            return took < 3

        await wait_until(soon, within=60, what="a change that is told soon")


async def test_a_change_of_another_service_wakes_none_of_them(discovery: RunningDiscovery) -> None:
    async with (
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
        connections(discovery, 50) as streams,
    ):
        await consul.register_service(ServiceRegistration("watched"))
        index = await index_of(discovery, "watched")
        await ask(streams, f"health/service/watched?index={index}")
        await wait_until(lambda: blocked(discovery) == 50)
        await consul.register_service(ServiceRegistration("other", checks=LEASE))
        for _ in range(20):
            await consul.pass_check("service:other", "renewed")
        await consul.kv_put("key", b"1")
        assert blocked(discovery) == 50


async def test_watchers_that_hang_up_are_forgotten(discovery: RunningDiscovery) -> None:
    async with connections(discovery, 20) as streams:
        await ask(streams, "catalog/services?index=1000000&wait=5m")
        await wait_until(lambda: blocked(discovery) == 20)
        for stream in streams[:15]:
            await stream.aclose()
        await wait_until(lambda: blocked(discovery) == 5)


async def test_a_stop_releases_every_watcher_at_once(tmp_path: Path) -> None:
    async def at_once() -> bool:
        async with discovery_in(tmp_path) as discovery, connections(discovery, WATCHERS) as streams:
            await ask(streams, "catalog/services?index=1000000&wait=10m")
            await wait_until(lambda: blocked(discovery) == WATCHERS)
            began = unhindered_s()
            with anyio.fail_after(20):
                await discovery.service.withdraw()
                answers = await read_answers(streams)
            assert {status for status, _ in answers} == {200}
            await ask(streams[:1], "catalog/services?index=1000000&wait=10m")
            assert [status for status, _ in await read_answers(streams[:1])] == [503]
        return unhindered_s() - began < 3

    await wait_until(at_once, within=60, what="a stop that no watcher holds up")


async def test_more_watchers_than_allowed_are_refused(tmp_path: Path) -> None:
    async with discovery_in(tmp_path, max_watchers=3) as discovery, connections(discovery, 4) as streams:
        await ask(streams[:3], "catalog/services?index=1000000&wait=5m")
        await wait_until(lambda: blocked(discovery) == 3)
        await ask(streams[3:], "catalog/services?index=1000000&wait=5m")
        ((status, text),) = await read_answers(streams[3:])
        assert (status, b"Too many blocked queries" in text) == (429, True)
        await ask(streams[3:], "catalog/services")
        assert [status for status, _ in await read_answers(streams[3:])] == [200]


async def test_a_lease_that_lapses_wakes_whoever_watches_its_service(discovery: RunningDiscovery) -> None:
    async with ConsulClient.open(discovery.consul, token=discovery.credentials.join) as consul:
        lease = TTLCheck(timedelta(milliseconds=200))
        await consul.register_service(ServiceRegistration("brief", checks=(lease,)))
        entries, index = await consul.health_service("brief", passing=True)
        assert len(entries) == 1
        with anyio.fail_after(20):
            entries, later = await consul.health_service("brief", passing=True, index=index, wait=timedelta(seconds=30))
        assert entries == []
        assert later > index

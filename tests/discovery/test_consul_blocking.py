"""Blocking queries: when they wait, what wakes them, and that they never miss a change; on both registries."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.discovery import Health
from toska_tests.discovery_rig import Answer, ConsulPort

TTL = TTLCheck(timedelta(seconds=30))


class Blocked:
    """A query that was sent and may be blocked."""

    def __init__(self) -> None:
        self._answered = anyio.Event()
        self._answer: Answer | None = None

    def settle(self, answer: Answer) -> None:
        self._answer = answer
        self._answered.set()

    async def answer(self, within: float = 20) -> Answer:
        with anyio.fail_after(within):
            await self._answered.wait()
        assert self._answer is not None
        return self._answer

    async def stays_blocked(self, for_s: float = 0.1) -> bool:
        with anyio.move_on_after(for_s):
            await self._answered.wait()
        return self._answer is None


@asynccontextmanager
async def blocked(port: ConsulPort, path: str) -> AsyncGenerator[Blocked]:
    """Ask `path` once for its index, then again to wait for a change of it."""
    index = (await port.get(path)).index
    separator = "&" if "?" in path else "?"
    query = Blocked()

    async def run() -> None:
        query.settle(await port.get(f"{path}{separator}index={index}&wait=30s"))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        assert await query.stays_blocked()
        yield query
        group.cancel_scope.cancel()


async def register(consul: ConsulClient, name: str) -> None:
    await consul.register_service(ServiceRegistration(name, checks=(TTL,)))


Change = Callable[[ConsulClient, str], Awaitable[object]]


CHANGES: list[tuple[str, Change]] = [
    ("health/service/{}", lambda consul, name: consul.fail_check(f"service:{name}")),
    ("health/service/{}?passing", lambda consul, name: consul.fail_check(f"service:{name}")),
    ("health/checks/{}", lambda consul, name: consul.warn_check(f"service:{name}")),
    ("catalog/service/{}", lambda consul, name: consul.deregister_service(name)),
    ("catalog/services", lambda consul, name: register(consul, f"{name}-new")),
    ("health/state/any", lambda consul, name: consul.fail_check(f"service:{name}")),
    ("health/service/{}-absent", lambda consul, name: register(consul, f"{name}-absent")),
]


@pytest.mark.parametrize(("path", "change"), CHANGES)
async def test_a_change_wakes_whoever_waits_for_it(
    port: ConsulPort, consul: ConsulClient, name: str, path: str, change: Change
) -> None:
    await register(consul, name)
    path = path.format(name)
    before = (await port.get(path)).index
    async with blocked(port, path) as query:
        await change(consul, name)
        answer = await query.answer()
    assert answer.status == 200
    assert answer.index > before


KEY_CHANGES: list[tuple[str, Change]] = [
    ("kv/{}/a", lambda consul, name: consul.kv_put(f"{name}/a", b"2")),
    ("kv/{}/a", lambda consul, name: consul.kv_delete(f"{name}/a")),
    ("kv/{}/none", lambda consul, name: consul.kv_put(f"{name}/none", b"2")),
    ("kv/{}/?recurse", lambda consul, name: consul.kv_put(f"{name}/b/c", b"2")),
    ("kv/{}/?keys", lambda consul, name: consul.kv_delete(f"{name}/a")),
    ("kv/{}/?recurse", lambda consul, name: consul.kv_delete(f"{name}/", recurse=True)),
    ("kv/{}/a", lambda consul, name: consul.kv_delete(f"{name}", recurse=True)),
]


@pytest.mark.parametrize(("path", "change"), KEY_CHANGES)
async def test_a_change_of_a_key_wakes_whoever_waits_for_it_or_for_a_prefix_of_it(
    port: ConsulPort, consul: ConsulClient, name: str, path: str, change: Change
) -> None:
    await consul.kv_put(f"{name}/a", b"1")
    path = path.format(name)
    before = (await port.get(path)).index
    async with blocked(port, path) as query:
        await change(consul, name)
        assert (await query.answer()).index > before


OTHER_CHANGES: list[tuple[str, Change]] = [
    ("health/service/{}", lambda consul, name: register(consul, f"{name}-other")),
    ("health/service/{}", lambda consul, name: consul.pass_check(f"service:{name}", "renewed")),
    ("catalog/services", lambda consul, name: consul.fail_check(f"service:{name}")),
    ("kv/{}/a", lambda consul, name: consul.kv_put(f"{name}/b", b"2")),
    ("kv/{}/a", lambda consul, name: consul.kv_put(f"{name}/a", b"1")),
    ("kv/{}/?recurse", lambda consul, name: consul.kv_put(f"{name}-other", b"2")),
]


@pytest.mark.parametrize(("path", "other"), OTHER_CHANGES)
async def test_what_does_not_concern_a_watcher_does_not_wake_it(
    port: ConsulPort, consul: ConsulClient, name: str, path: str, other: Change
) -> None:
    await register(consul, name)
    await consul.kv_put(f"{name}/a", b"1")
    async with blocked(port, path.format(name)) as query:
        await other(consul, name)
        assert await query.stays_blocked()


async def test_a_query_with_an_older_index_is_answered_at_once(
    port: ConsulPort, consul: ConsulClient, name: str
) -> None:
    await register(consul, name)
    index = (await port.get(f"health/service/{name}")).index
    await consul.fail_check(f"service:{name}")
    with anyio.fail_after(20):
        while (await port.get(f"health/service/{name}?index={index}&wait=30s")).index == index:
            pass


async def test_a_wait_ends_with_the_same_index_and_no_sooner_than_asked(port: ConsulPort, name: str) -> None:
    index = (await port.get(f"kv/{name}")).index
    began = time.monotonic()
    answer = await port.get(f"kv/{name}?index={max(index, 10**6)}&wait=200ms")
    assert 0.2 <= time.monotonic() - began < 20
    assert answer.status == 404


async def test_no_change_is_missed_between_two_queries(port: ConsulPort, consul: ConsulClient, name: str) -> None:
    seen: list[bytes] = []
    async with anyio.create_task_group() as group:

        async def follow() -> None:
            index = 0
            while b"done" not in seen:
                found, index = await consul.kv_get(name, index=index, wait=timedelta(seconds=10))
                if found is not None:
                    seen.append(found.value)

        group.start_soon(follow)
        with anyio.fail_after(20):
            for number in range(50):
                await consul.kv_put(name, str(number).encode())
            await consul.kv_put(name, b"done")
    assert seen[-1] == b"done"
    numbers = [int(value) for value in seen[:-1]]
    assert numbers == sorted(set(numbers))


async def test_our_client_follows_a_service_through_its_life(consul: ConsulClient, name: str) -> None:
    states: list[list[Health]] = []
    with anyio.fail_after(20):
        async with aclosing(consul.watch_health(name)) as watch, anyio.create_task_group() as group:
            async for entries in watch:
                states.append([entry.health for entry in entries])
                match states:
                    case [[]]:
                        group.start_soon(register, consul, name)
                    case [*_, [Health.PASSING]] if [Health.CRITICAL] not in states:
                        group.start_soon(consul.fail_check, f"service:{name}")
                    case [*_, [Health.CRITICAL]]:
                        group.start_soon(consul.deregister_service, name)
                    case [_, *_, []]:
                        break
                    case _:
                        pass
    assert states[0] == states[-1] == []
    assert states.index([Health.PASSING]) < states.index([Health.CRITICAL])


async def test_our_client_follows_the_list_of_services_and_the_keys_below_a_prefix(
    consul: ConsulClient, name: str
) -> None:
    found: list[str] = []
    with anyio.fail_after(20):
        async with aclosing(consul.watch_services()) as services, anyio.create_task_group() as group:
            async for names in services:
                if name in names:
                    break
                group.start_soon(register, consul, name)
        async with aclosing(consul.watch_keys(f"{name}/")) as keys, anyio.create_task_group() as group:
            async for pairs in keys:
                found = [pair.key for pair in pairs]
                if found:
                    break
                group.start_soon(consul.kv_put, f"{name}/a", b"1")
    assert found == [f"{name}/a"]

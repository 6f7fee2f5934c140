"""A mesh service's place in the registry, kept against a registry that forgets or is away."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.clients.presence import Presence
from toska_common.credentials import ensure_credentials
from toska_tests.discoveries import running_discovery
from toska_tests.registries import wire_to
from toska_tests.waiting import wait_until

REGISTRATION = ServiceRegistration(name="toska-thing", id="toska-thing-1", address="127.0.0.1", port=9001)
TTL = timedelta(milliseconds=300)


@asynccontextmanager
async def registry(home: Path) -> AsyncGenerator[ConsulClient]:
    async with running_discovery(home) as url, ConsulClient.open(url, token=ensure_credentials(home).admin) as consul:
        yield consul


@asynccontextmanager
async def kept(consul: ConsulClient) -> AsyncGenerator[Presence]:
    presence = Presence(consul, REGISTRATION, ttl=TTL)
    async with anyio.create_task_group() as group:
        group.start_soon(presence.keep)
        yield presence
        group.cancel_scope.cancel()


async def wait_for_listing(consul: ConsulClient, *, listed: bool = True) -> None:
    async def is_so() -> bool:
        return bool((await consul.health_service("toska-thing", passing=True))[0]) is listed

    await wait_until(is_so, what=f"listed is {listed}")


async def test_it_is_listed_from_the_announcement_to_the_withdrawal(home: Path) -> None:
    async with registry(home) as consul, kept(consul) as presence:
        assert (await consul.catalog_service("toska-thing"))[0] == []
        await presence.announce()
        await wait_for_listing(consul)
        [check], _ = await consul.health_checks("toska-thing")
        assert check.id == "service:toska-thing-1"
        await presence.withdraw()
        assert (await consul.catalog_service("toska-thing"))[0] == []


async def test_it_registers_again_when_the_registry_forgot_it(home: Path) -> None:
    async with registry(home) as consul, kept(consul) as presence:
        await presence.announce()
        await wait_for_listing(consul)
        await consul.deregister_service(REGISTRATION.id)
        await wait_for_listing(consul)
        await wait_until(lambda: presence.listed, what="the registry's answer")


async def test_it_outlives_a_registry_that_is_away_at_the_start_and_later(home: Path) -> None:
    token = ensure_credentials(home).admin
    async with running_discovery(home) as url, wire_to(url) as wire, ConsulClient.open(url, token=token) as direct:
        await wire.cut()
        async with ConsulClient.open(wire.url, token=token) as consul, kept(consul) as presence:
            await presence.announce()
            await wait_for_listing(direct, listed=False)
            for _ in range(2):
                wire.mend()
                await wait_for_listing(direct)
                await wire.cut()
                await wait_for_listing(direct, listed=False)
            wire.mend()
            await wait_for_listing(direct)

"""Instances that die, stop, or outlive their registry: who is listed, and where the gateway sends."""

import math
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.clients.presence import Presence
from toska_tests import echo_app
from toska_tests.clients import http_client, scraped
from toska_tests.discovery_rig import discovery_process
from toska_tests.meshes import RunningMesh, joined_app, toska_up
from toska_tests.ports import free_ports
from toska_tests.waiting import wait_until


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--no-examples") as started:
        yield started


@pytest.fixture
async def consul(mesh: RunningMesh) -> AsyncGenerator[ConsulClient]:
    async with ConsulClient.open(mesh.url("registry"), token=mesh.token("admin")) as client:
        yield client


async def _passing(consul: ConsulClient) -> set[str]:
    return {entry.service.id for entry in (await consul.health_service("echo", passing=True))[0]}


async def test_a_killed_instance_gets_no_requests_long_before_its_lease_lapses(
    mesh: RunningMesh, consul: ConsulClient
) -> None:
    async with joined_app(mesh, echo_app, "echo", environment={"TOSKA_LEASE_TTL": "60s"}) as program:
        (own,) = await _passing(consul)
        async with http_client() as client:

            async def nobody_is_left() -> bool:
                answer = await client.get(f"{mesh.gateway}/echo/pid")
                return answer.status_code == 503 and "has no endpoints" in answer.text

            everybody = len(await consul.agent_services())  # the mesh's own services too
            await wait_until(lambda: _are_watched(mesh, everybody), what="discovery has seen the port open")
            program.send(signal.SIGKILL)
            await wait_until(nobody_is_left, within=30, what="the gateway sends nobody there")  # half of its lease
        checks = {check.id: check for check in (await consul.health_checks("echo"))[0]}
        assert checks[f"service:{own}"].output.startswith("connection refused: nobody listens on 127.0.0.1:")


async def _are_watched(mesh: RunningMesh, count: int) -> bool:
    url = f"{mesh.url('discovery')}/metrics"
    return await scraped(url, "toska_discovery_watched_ports", headers=mesh.authorization("admin")) == count


async def test_an_instance_that_is_stopped_for_longer_than_its_ttl_comes_back(
    mesh: RunningMesh, consul: ConsulClient
) -> None:
    async with joined_app(mesh, echo_app, "echo", environment={"TOSKA_LEASE_TTL": "2s"}) as program:
        own = await _until_alone(consul)
        program.send(signal.SIGSTOP)
        await wait_until(lambda: _is_empty(consul), what="its lease lapses")  # its port is open all the time
        (check,) = [item for item in (await consul.health_checks("echo"))[0] if item.id == f"service:{own}"]
        assert check.output.startswith("TTL expired")
        program.send(signal.SIGCONT)
        await wait_until(lambda: _is_listed(consul, own), what="it is passing again")


async def _until_alone(consul: ConsulClient) -> str:
    found: set[str] = set()

    async def is_alone() -> bool:
        nonlocal found
        found = await _passing(consul)
        return len(found) == 1

    await wait_until(is_alone, what="it is listed")
    return found.pop()


async def _is_empty(consul: ConsulClient) -> bool:
    return not await _passing(consul)


async def _is_listed(consul: ConsulClient, own: str) -> bool:
    return own in await _passing(consul)


# A registry of their own, which dies.

COUNT = 20
TTL = timedelta(seconds=3)


class Pace:
    """Whether this process, where leases are renewed, stood still."""

    def __init__(self) -> None:
        self._stood_still_at = -math.inf

    async def run(self) -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(0.05)
            now = time.monotonic()
            if now - last > 0.5:
                self._stood_still_at = now
            last = now

    def stood_still_lately(self) -> bool:
        return time.monotonic() - self._stood_still_at < 2 * TTL.total_seconds()


@asynccontextmanager
async def renewed(url: str, token: str) -> AsyncGenerator[tuple[ConsulClient, Pace]]:
    """Keep `COUNT` instances listed at the registry, for as long as it is there and whenever it is there again."""
    async with ConsulClient.open(url, token=token) as consul, anyio.create_task_group() as group:
        pace = Pace()
        group.start_soon(pace.run)
        for number in range(COUNT):
            registration = ServiceRegistration("orders", f"orders-{number}", "127.0.0.1", 1 + number)
            presence = Presence(consul, registration, ttl=TTL)
            await presence.announce()
            group.start_soon(presence.keep)
        yield consul, pace
        group.cancel_scope.cancel()


async def _states(consul: ConsulClient) -> list[str]:
    entries, _ = await consul.health_service("orders")
    return [check.status.value for entry in entries for check in entry.checks if check.id.startswith("service:")]


async def _all_pass(consul: ConsulClient) -> bool:
    return await _states(consul) == ["passing"] * COUNT


async def test_a_registry_that_is_killed_under_renewals_comes_back_with_everybody_and_loses_nobody(
    tmp_path: Path,
) -> None:
    port = free_ports(2)
    with discovery_process(tmp_path, port) as first:
        await first.wait_until_ready()
        async with renewed(first.consul, first.token) as (consul, pace):
            await wait_until(lambda: _all_pass(consul), what="all are listed")
            first.program.send(signal.SIGKILL)
            await first.program.exit_code()
            with discovery_process(tmp_path, port) as second:
                await second.wait_until_ready()
                await _nobody_lapses(consul, pace)


async def _nobody_lapses(consul: ConsulClient, pace: Pace) -> bool:
    """Watch for longer than a lease; anew if who renews stood still, and so somebody did lapse. False if so."""
    undisturbed = True

    async def watched() -> bool:
        nonlocal undisturbed
        ends = time.monotonic() + 1.5 * TTL.total_seconds()
        while time.monotonic() < ends:
            if not await _all_pass(consul):
                assert pace.stood_still_lately()
                undisturbed = False
                await wait_until(lambda: _all_pass(consul), what="all are listed again")
                return False
            await anyio.sleep(0.05)
        return True

    await wait_until(watched, within=90, what="a machine that leaves renewals in time")
    return undisturbed


async def test_everybody_registers_again_with_a_registry_that_lost_its_memory(tmp_path: Path) -> None:
    port = free_ports(2)
    with discovery_process(tmp_path, port) as first:
        await first.wait_until_ready()
        async with renewed(first.consul, first.token) as (consul, _):
            await wait_until(lambda: _all_pass(consul), what="all are listed")
            first.program.send(signal.SIGKILL)
            await first.program.exit_code()
            for file in first.home.glob("discovery.sqlite*"):
                file.unlink()
            with discovery_process(tmp_path, port) as second:
                await second.wait_until_ready()
                await wait_until(lambda: _all_pass(consul), what="all are listed again")


async def test_a_registry_that_is_stopped_for_longer_than_their_ttl_takes_nobody_for_dead(tmp_path: Path) -> None:
    with discovery_process(tmp_path) as process:
        await process.wait_until_ready()
        async with renewed(process.consul, process.token) as (consul, pace):
            await wait_until(lambda: _all_pass(consul), what="all are listed")
            index = (await consul.health_service("orders"))[1]
            process.program.send(signal.SIGSTOP)
            await anyio.sleep(TTL.total_seconds() + 2)
            process.program.send(signal.SIGCONT)
            undisturbed = await _nobody_lapses(consul, pace)
            assert (await consul.health_service("orders"))[1] == index or not undisturbed

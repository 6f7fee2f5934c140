"""Very many leases that lapse at once: everybody else goes on being served."""

import itertools
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from toska_common.contracts.discovery import Health
from toska_common.testing import FakeClock
from toska_discovery.embedded import SLICE, EmbeddedRegistry
from toska_discovery.instance import ServiceDefinition
from toska_discovery.registry import Registry
from toska_discovery.store import SqliteStore
from toska_discovery.watch import Watchers
from toska_tests.registrations import NOON, REMOVAL_S, TTL_S, check
from toska_tests.waiting import wait_until

COUNT = 4000
SWEEP_S = 0.25


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def registry(tmp_path: Path, clock: FakeClock) -> AsyncGenerator[EmbeddedRegistry]:
    """With `COUNT` instances that are passing and will not be renewed."""
    async with SqliteStore.open(tmp_path) as store:
        state = Registry(sweep_interval_s=SWEEP_S, now=clock.monotonic())
        opened = EmbeddedRegistry(state, store, Watchers(10), clock)
        for number in range(COUNT):
            service = ServiceDefinition(f"s{number}", f"service-{number % 50}", "192.0.2.1", 1 + number)
            state.register(service, [check(f"service:s{number}")], clock.monotonic(), NOON)
        yield opened


def live(registry: EmbeddedRegistry, clock: FakeClock, seconds: float) -> None:
    """Let time pass with a sweep each interval, as long as nothing is due."""
    for _ in range(round(seconds / SWEEP_S)):
        clock.advance(seconds=SWEEP_S)
        registry.state.sweep(clock.monotonic(), 0)


async def test_a_slice_takes_its_share_and_the_rest_follows(registry: EmbeddedRegistry, clock: FakeClock) -> None:
    live(registry, clock, TTL_S)
    registry.sweep()
    assert registry.state.by_health[Health.CRITICAL] == SLICE
    assert not registry.state.is_swept
    slices = 1
    while not registry.state.is_swept:
        registry.sweep()
        slices += 1
    assert registry.state.by_health == {Health.PASSING: 0, Health.WARNING: 0, Health.CRITICAL: COUNT}
    assert slices == -(-COUNT // SLICE)


async def test_the_loop_turns_while_all_leases_lapse_and_all_instances_are_removed(
    registry: EmbeddedRegistry, clock: FakeClock
) -> None:
    live(registry, clock, TTL_S)
    turns: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(registry.keep_sweeping, timedelta(milliseconds=1))

        async def turn() -> None:
            while True:
                turns.append(registry.state.by_health[Health.CRITICAL])
                await anyio.lowlevel.checkpoint()

        group.start_soon(turn)
        await wait_until(lambda: registry.state.by_health[Health.CRITICAL] == COUNT)
        steps = [after - before for before, after in itertools.pairwise(turns)]
        assert 0 < max(steps) <= SLICE
        live(registry, clock, REMOVAL_S)
        started = time.monotonic()
        await wait_until(lambda: not registry.state.instances)
        assert time.monotonic() - started < 10
        group.cancel_scope.cancel()
    await registry.store.flush()


async def test_a_renewal_between_two_slices_saves_its_instance(registry: EmbeddedRegistry, clock: FakeClock) -> None:
    live(registry, clock, TTL_S)
    registry.sweep()
    saved = f"service:s{COUNT - 1}"
    registry.report(saved, Health.PASSING, "just in time")
    while not registry.state.is_swept:
        registry.sweep()
    assert registry.state.by_health[Health.PASSING] == 1
    found = registry.state.find_check(saved)
    assert found is not None
    assert found[1].status is Health.PASSING


async def test_a_stall_of_the_loop_costs_nobody_their_lease(registry: EmbeddedRegistry, clock: FakeClock) -> None:
    live(registry, clock, TTL_S - 1)
    clock.advance(seconds=3600)
    registry.sweep()
    assert registry.state.is_swept
    assert registry.state.by_health[Health.PASSING] == COUNT
    live(registry, clock, 0.5)
    registry.sweep()
    assert registry.state.by_health[Health.PASSING] == COUNT
    live(registry, clock, 1)
    registry.sweep()
    assert registry.state.by_health[Health.CRITICAL] == SLICE

"""Readers that look again when a topic speaks: once for however many events, and by their own clock without any."""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from anyio.abc import TaskGroup
from toska_common.clients.consul_watch import Sleep, ignore, watch
from toska_common.contracts.events import INSTANCE_TOPICS, HealthChanged, InstanceEvent, InstanceRegistered
from toska_common.errors import UpstreamUnavailable
from toska_common.events import EventBus, Message
from toska_common.events.nudges import Nudges
from toska_tests.event_carriers import Carrier, LogHost
from toska_tests.waiting import PATIENT_S, wait_until

AN_HOUR = timedelta(hours=1)


def joined(service: str = "orders", kind: type[InstanceEvent] = InstanceRegistered) -> InstanceEvent:
    return kind(service=service, instance_id=f"{service}-1", address="127.0.0.1", port=9001, health="passing")


class Looks:
    """A reader that counts how often it looked, and what it heard of."""

    def __init__(self, nudges: Nudges) -> None:
        self.count = 0
        self.heard: list[str | None] = []
        nudges.note = lambda event: self.heard.append(event.subject)

    def look(self) -> None:
        self.count += 1


@asynccontextmanager
async def standing(bus: EventBus) -> AsyncGenerator[TaskGroup]:
    async with bus.open(), anyio.create_task_group() as group:
        with anyio.fail_after(PATIENT_S):
            await bus.subscribed()
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
def bus(event_log: LogHost) -> EventBus:
    return EventBus("toska-tests", lambda: event_log.connect(service="toska-tests"))


async def test_over_any_transport_a_pause_ends_when_a_topic_speaks(carrier: Carrier) -> None:
    bus = EventBus("tests", carrier.connect)
    nudges = Nudges(bus, f"{carrier.word}.#", name="reader")
    async with standing(bus) as group:
        looks = Looks(nudges)
        group.start_soon(nudges.run, looks.look)
        await bus.publish(carrier.event("something.happened", subject="orders"))
        await wait_until(lambda: looks.count == 1, what="the reader looks")
    assert looks.heard == ["orders"]


async def test_health_and_instances_are_what_readers_of_the_registry_hear_of(bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader")
    async with standing(bus):
        looks = Looks(nudges)
        for kind in (InstanceRegistered, HealthChanged):
            await bus.publish(joined(kind=kind), subject=kind.event_topic)
        await wait_until(lambda: len(looks.heard) == 2, what="both were heard")
    assert set(looks.heard) == {"mesh.instance.registered", "mesh.health.changed"}


async def test_a_flood_of_events_is_one_look(bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader", every=AN_HOUR)
    async with standing(bus) as group:
        looks = Looks(nudges)
        group.start_soon(nudges.run, looks.look)
        await bus.publish_batch([Message(bus.event(joined(), subject=str(number))) for number in range(2000)])
        await wait_until(lambda: len(looks.heard) == 2000, what="all were heard")
        await wait_until(lambda: looks.count > 0, what="the reader looks")
    assert looks.count == 1


async def test_what_is_said_after_a_look_is_looked_at_when_the_next_one_may_be(bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader", every=timedelta(milliseconds=300))
    times: list[float] = []
    async with standing(bus) as group:
        group.start_soon(nudges.run, lambda: times.append(anyio.current_time()))
        await bus.publish(joined())
        await wait_until(lambda: len(times) == 1, what="a first look")
        await bus.publish(joined())
        await wait_until(lambda: len(times) == 2, what="a second look")
    assert times[1] - times[0] >= 0.25


async def test_a_flood_that_nobody_waited_for_does_not_put_the_next_look_off(bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader")
    async with standing(bus) as group:
        looks = Looks(nudges)
        await bus.publish_batch([Message(bus.event(joined())) for _ in range(200)])
        await wait_until(lambda: len(looks.heard) == 200, what="all were heard")
        group.start_soon(nudges.run, looks.look)
        await bus.publish(joined())
        await wait_until(lambda: looks.count == 1, what="the reader looks")


async def test_what_is_said_while_a_reader_looks_has_it_look_again(bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader")
    async with standing(bus):
        before = nudges.heard
        await bus.publish(joined())
        await wait_until(lambda: nudges.heard == before + 1, what="the event, while it reads")
        with anyio.fail_after(PATIENT_S):
            await nudges.sleep(math.inf, since=before)


async def test_without_a_broker_pauses_last_as_long_as_they_say(event_log: LogHost, bus: EventBus) -> None:
    await event_log.stop()
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader")
    async with bus.open():
        started = anyio.current_time()
        with anyio.fail_after(PATIENT_S):
            await nudges.sleep(0.05)
        assert anyio.current_time() - started >= 0.04
    await event_log.start()


async def test_readers_hear_again_once_the_broker_is_back(event_log: LogHost, bus: EventBus) -> None:
    nudges = Nudges(bus, *INSTANCE_TOPICS, name="reader", every=timedelta())
    async with standing(bus) as group:
        looks = Looks(nudges)
        group.start_soon(nudges.run, looks.look)
        await event_log.restart()
        await bus.publish(joined(), within=timedelta(seconds=PATIENT_S))
        await wait_until(lambda: looks.count == 1, what="the reader looks")


class Registry:
    """Something that is asked by blocking queries, and away until a test says otherwise."""

    def __init__(self) -> None:
        self.away = True
        self.asked = 0

    async def query(self, *, index: int) -> tuple[str, int]:
        self.asked += 1
        if self.away:
            raise UpstreamUnavailable("the registry is away")
        if index:
            await anyio.sleep_forever()
        return "news", 1


@asynccontextmanager
async def watching(registry: Registry, sleep: Sleep) -> AsyncGenerator[list[str]]:
    found: list[str] = []

    async def follow() -> None:
        found.append(await anext(watch("things", registry.query, ignore, sleep)))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        yield found
        group.cancel_scope.cancel()


async def test_a_watch_that_waits_after_an_error_asks_at_once_when_a_topic_speaks(bus: EventBus) -> None:
    nudges, registry = Nudges(bus, *INSTANCE_TOPICS, name="registry"), Registry()

    pauses: list[float] = []

    async def for_ever(seconds: float) -> None:
        pauses.append(seconds)
        await nudges.sleep(math.inf)

    async with standing(bus), watching(registry, for_ever) as found:
        await wait_until(lambda: len(pauses) == 1, what="a first query in vain")
        registry.away = False
        await bus.publish(joined())
        await wait_until(lambda: found == ["news"], what="the watch has news")


async def test_a_watch_goes_on_by_its_own_clock_while_nobody_speaks(event_log: LogHost, bus: EventBus) -> None:
    await event_log.stop()
    nudges, registry = Nudges(bus, *INSTANCE_TOPICS, name="registry"), Registry()
    async with bus.open(), watching(registry, nudges.sleep) as found:
        await wait_until(lambda: registry.asked >= 3, what="it is asked again and again")
        registry.away = False
        await wait_until(lambda: found == ["news"], what="the watch has news")
    await event_log.start()

"""What the embedded log forgets, and what it never does."""

import os
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.events.errors import LogFull
from toska_common.events.event import Event
from toska_common.events.opening import open_transport
from toska_common.events.transport import BEGINNING, Message, Subscription, TopicSettings, Transport
from toska_common.testing import FakeClock
from toska_events.groups.delays import MOST
from toska_events.hosting import HostedLog, host_log
from toska_events.settings import Settings
from toska_tests.event_carriers import publish, read_all, take, take_acked
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now_utc())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_age=timedelta(hours=1), max_bytes=16 << 20)


def _never(error: Exception) -> None:
    raise AssertionError from error


@pytest.fixture
async def hosted(settings: Settings, clock: FakeClock) -> AsyncGenerator[HostedLog]:
    async with host_log(settings, clock, _never) as found:
        yield found


@pytest.fixture
async def transport(hosted: HostedLog, settings: Settings) -> AsyncGenerator[Transport]:
    async with open_transport("embedded://", home=settings.home, token=settings.credentials().admin) as found:
        yield found


def event(topic: str, data: bytes = b"{}") -> Event:
    return Event(topic=topic, source="/tests", id=os.urandom(8).hex(), time=now_utc(), data=data)


async def kept(transport: Transport) -> list[bytes]:
    return [one.event.data for one in await read_all(transport.read(["#"], BEGINNING))]


async def test_old_events_are_forgotten_once_every_group_has_settled_them(
    transport: Transport, hosted: HostedLog, clock: FakeClock
) -> None:
    async with (
        transport.subscribe(Subscription(("a",), group="quick")) as quick,
        transport.subscribe(Subscription(("a",), group="slow")) as slow,
    ):
        await publish(transport, event("a", b"1"), event("a", b"2"), event("b", b"nobody's"))
        await take_acked(quick, 2)
        _, second = await take(slow, 2)
        await second.ack()
        await wait_until(lambda: len(hosted.broker.groups["slow"].given) == 1)
        clock.advance(seconds=3599)
        await publish(transport, event("b", b"young"))
        assert await hosted.retention.look() == 0
        clock.advance(seconds=2)
        assert await hosted.retention.look() > 0
        assert await kept(transport) == [b"1", b"young"]


async def test_what_a_group_has_not_seen_stays_whatever_its_age(
    transport: Transport, hosted: HostedLog, clock: FakeClock
) -> None:
    async with transport.subscribe(Subscription(("a",), group="away")):
        pass
    await publish(transport, event("a", b"wanted"), event("b", b"nobody's"))
    clock.advance(seconds=86400 * 365)
    await hosted.retention.look()
    assert await kept(transport) == [b"wanted"]
    async with transport.subscribe(Subscription(("a",), group="away")) as consumer:
        assert await take_acked(consumer) == [b"wanted"]
        await wait_until(lambda: hosted.broker.groups["away"].acked == 1)
    await hosted.retention.look()
    assert await kept(transport) == []


async def test_what_is_scheduled_or_retried_stays_until_its_time(
    transport: Transport, hosted: HostedLog, clock: FakeClock
) -> None:
    async with transport.subscribe(Subscription(("a",), group="g")) as consumer:
        later = clock.now() + timedelta(hours=5)
        await transport.publish([Message(event("a", b"scheduled"), deliver_at=later)])
        await publish(transport, event("a", b"retried"))
        (delivery,) = await take(consumer)
        await delivery.retry(timedelta(hours=3), "closed today")
        await wait_until(lambda: not hosted.broker.groups["g"].given)
        clock.advance(seconds=2 * 3600)
        await hosted.retention.look()
        assert await kept(transport) == [b"scheduled", b"retried"]
        for hours, expected in ((1.1, b"retried"), (2, b"scheduled")):
            clock.advance(seconds=hours * 3600)
            hosted.broker.feeder.wake()
            assert await take_acked(consumer) == [expected]


async def test_a_topic_has_an_age_and_a_size_of_its_own(
    transport: Transport, hosted: HostedLog, clock: FakeClock
) -> None:
    await transport.administration.put_topic(TopicSettings("short", max_age=timedelta(minutes=1)))
    await transport.administration.put_topic(TopicSettings("long", max_age=timedelta(days=1)))
    await transport.administration.put_topic(TopicSettings("small", max_bytes=2500))
    await publish(transport, event("short"), event("long", b"long"))
    await publish(transport, *(event("small", str(number).encode() * 1000) for number in range(5)))
    clock.advance(seconds=61)
    await hosted.retention.look()
    assert await kept(transport) == [b"long", b"3" * 1000, b"4" * 1000]
    clock.advance(seconds=3600 * 23)
    await hosted.retention.look()
    assert await kept(transport) == [b"long"]


async def test_a_log_that_is_nearly_full_forgets_the_oldest_first(transport: Transport, hosted: HostedLog) -> None:
    for number in range(27):
        await publish(transport, event("a" if number % 2 else "b", number.to_bytes(1) * 500_000))
    await hosted.retention.look()
    numbers = [data[0] for data in await kept(transport)]
    assert 0 < len(numbers) < 27
    assert numbers == list(range(27 - len(numbers), 27))


async def test_a_full_log_refuses_publishers_says_so_and_takes_more_by_itself_once_there_is_room(
    transport: Transport, hosted: HostedLog
) -> None:
    async with transport.subscribe(Subscription(("a",), group="g", prefetch=100)) as consumer:
        stored = 0
        with pytest.raises(LogFull):
            while True:
                await publish(transport, event("a", b"x" * 500_000), event("a", b"y" * 500_000))
                stored += 2
        await hosted.retention.look()
        with pytest.raises(LogFull):
            await publish(transport, event("a", b"x" * 900_000), event("a", b"y" * 500_000))
        await take_acked(consumer, stored)
        await wait_until(lambda: hosted.broker.groups["g"].acked == stored)
        with anyio.fail_after(20):
            await hosted.retention.look()
        await publish(transport, event("a", b"room"))
        assert await take_acked(consumer) == [b"room"]


async def test_a_full_log_of_what_everybody_had_makes_room_by_itself(transport: Transport, hosted: HostedLog) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hosted.retention.run, timedelta(days=1))

        async def fits() -> bool:
            try:
                await publish(transport, event("a", b"x" * 900_000))
            except LogFull:
                return False
            return True

        for _ in range(60):
            await wait_until(fits, what="room to be made")
        tasks.cancel_scope.cancel()
    assert 0 < len(await kept(transport)) < 20


async def test_of_very_many_scheduled_events_memory_holds_few_and_all_come_in_their_time(
    transport: Transport, hosted: HostedLog, clock: FakeClock
) -> None:
    count = MOST + 2000
    async with transport.subscribe(Subscription(("a",), group="g", prefetch=500)) as consumer:
        delays = hosted.broker.groups["g"].delayed
        begin = clock.now()
        for start in range(0, count, 500):
            numbers = range(start, start + 500)
            await transport.publish(
                [
                    Message(event("a", str(number).encode()), deliver_at=begin + timedelta(seconds=number * 7 % count))
                    for number in numbers
                ]
            )
        assert len(delays) <= MOST
        (group,) = await transport.administration.groups()
        assert group.delayed == count - 1
        clock.advance(seconds=count)
        hosted.broker.feeder.wake()
        seen = [int(data) for data in await take_acked(consumer, count)]
    assert sorted(seen) == list(range(count))

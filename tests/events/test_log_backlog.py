"""Groups that are far behind are fed from the file, and meet the events that are published meanwhile."""

from collections.abc import AsyncGenerator
from datetime import timedelta

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.events.event import Event
from toska_common.events.transport import Message, Priority, Subscription, Transport
from toska_tests.event_carriers import LogHost, publish, take, take_acked
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio

MANY = 2500
"""More than a group has in memory."""


@pytest.fixture
async def transport(event_log: LogHost) -> AsyncGenerator[Transport]:
    async with event_log.connect() as found:
        yield found


def numbered(numbers: range, topic: str = "a.b", key: str | None = None) -> list[Event]:
    return [
        Event(topic=topic, source="/tests", id=f"{topic}-{n}", time=now_utc(), data=str(n).encode(), key=key)
        for n in numbers
    ]


async def test_a_high_priority_passes_a_backlog_that_is_longer_than_memory(transport: Transport) -> None:
    wanted = Subscription(("a.#",), group="g", prefetch=1)
    async with transport.subscribe(wanted):
        pass
    await publish(transport, *numbered(range(MANY)))
    (urgent,) = numbered(range(MANY, MANY + 1))
    await transport.publish([Message(urgent, priority=Priority.HIGH)])
    async with transport.subscribe(wanted) as consumer:
        assert await take_acked(consumer, 3) == [str(MANY).encode(), b"0", b"1"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_group_that_catches_up_misses_and_doubles_nothing(
    event_log: LogHost, transport: Transport, ordered: bool
) -> None:
    wanted = Subscription(("a.#",), group="g", prefetch=100, ordered=ordered)
    async with transport.subscribe(wanted):
        pass
    await publish(transport, *numbered(range(MANY)))
    async with transport.subscribe(wanted) as consumer, anyio.create_task_group() as tasks:

        async def go_on() -> None:
            for start in range(MANY, 2 * MANY, 50):
                await publish(
                    transport, *numbered(range(start, start + 50)), *numbered(range(start, start + 5), "other")
                )

        tasks.start_soon(go_on)
        seen = [int(data) for data in await take_acked(consumer, 2 * MANY)]
        assert seen == list(range(2 * MANY))
        group = event_log.hosted.broker.groups["g"]
        lane = group.cursors[1]
        await wait_until(lambda: lane.tail, what="the group to be fed from memory again")


async def test_a_group_that_wants_few_of_very_many_events_finds_them(transport: Transport) -> None:
    wanted = Subscription(("rare.#",), group="g")
    async with transport.subscribe(wanted):
        pass
    for start in range(0, MANY, 500):
        await publish(transport, *numbered(range(start, start + 500), "common.one"))
        await publish(transport, *numbered(range(start, start + 1), "rare.one"))
    async with transport.subscribe(wanted) as consumer:
        assert await take_acked(consumer, 5) == [b"0", b"500", b"1000", b"1500", b"2000"]


async def test_a_key_with_a_long_backlog_is_handled_in_order_after_its_retry(transport: Transport) -> None:
    wanted = Subscription(("a.#",), group="g", prefetch=50, ordered=True)
    async with transport.subscribe(wanted) as consumer:
        await publish(transport, *numbered(range(1), key="bad"))
        (first,) = await take(consumer)
        await first.retry(timedelta(milliseconds=100), "not yet")
        await publish(transport, *numbered(range(1, 800), key="bad"))
        await publish(transport, *numbered(range(3), "a.good", key="good"))
        seen: dict[str, list[int]] = {"a.b": [], "a.good": []}
        for _ in range(803):
            (delivery,) = await take(consumer)
            seen[delivery.event.topic].append(int(delivery.event.data))
            await delivery.ack()
        assert seen == {"a.b": list(range(800)), "a.good": [0, 1, 2]}

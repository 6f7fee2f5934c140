"""When events are handed out, by every durable transport: by priority, until they expire, and not before their time."""

from datetime import timedelta

import pytest
from toska_common.clock import now_utc
from toska_common.events.transport import (
    Message,
    Priority,
    TopicSettings,
    Transport,
)
from toska_tests.event_carriers import Carrier, publish, take_acked, wanting
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=50)


async def test_higher_priorities_go_first_and_within_one_the_order_of_publishing(
    carrier: Carrier, transport: Transport
) -> None:
    wanted = wanting(carrier, prefetch=1)
    async with transport.subscribe(wanted):
        pass
    waiting = [(Priority.LOW, 0), (Priority.NORMAL, 1), (Priority.HIGH, 2), (Priority.LOW, 3), (Priority.HIGH, 4)]
    for priority, number in waiting:
        await transport.publish([Message(carrier.event("a", str(number).encode()), priority=priority)])
    async with transport.subscribe(wanted) as consumer:
        assert await take_acked(consumer, 5) == [b"2", b"4", b"1", b"0", b"3"]


async def test_an_expired_event_is_dropped(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier)):
        pass
    soon = now_utc() + timedelta(milliseconds=5)
    await transport.publish([Message(carrier.event("a", b"gone"), expires_at=soon)])
    await transport.publish([Message(carrier.event("a", b"here"), expires_at=now_utc() + timedelta(hours=1))])
    await wait_until(lambda: now_utc() > soon)
    async with transport.subscribe(wanting(carrier)) as consumer:
        assert await take_acked(consumer) == [b"here"]


async def test_a_topic_gives_its_events_an_expiry(carrier: Carrier, transport: Transport) -> None:
    await transport.administration.put_topic(TopicSettings(carrier.topic("a"), time_to_live=timedelta(milliseconds=5)))
    async with transport.subscribe(wanting(carrier)):
        pass
    await publish(transport, carrier.event("a", b"gone"), carrier.event("b", b"here"))
    published_at = now_utc()
    await wait_until(lambda: now_utc() > published_at + SOON)
    async with transport.subscribe(wanting(carrier)) as consumer:
        assert await take_acked(consumer) == [b"here"]


async def test_a_scheduled_event_comes_no_earlier_and_keeps_nobody_waiting(
    carrier: Carrier, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier)) as consumer:
        due = now_utc() + timedelta(milliseconds=150)
        await transport.publish([Message(carrier.event("a", b"later"), deliver_at=due)])
        await publish(transport, carrier.event("a", b"now"))
        assert await take_acked(consumer) == [b"now"]
        assert await take_acked(consumer) == [b"later"]
        assert now_utc() >= due


async def test_a_scheduled_event_has_its_priority_when_its_time_has_come(
    carrier: Carrier, transport: Transport
) -> None:
    wanted = wanting(carrier, prefetch=1)
    async with transport.subscribe(wanted):
        pass
    due = now_utc() + timedelta(milliseconds=150)
    priorities = enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH))
    await transport.publish(
        [Message(carrier.event("a", b"%d" % number), priority, deliver_at=due) for number, priority in priorities]
    )

    async def are_there() -> bool:
        (group,) = [one for one in await transport.administration.groups() if one.name == carrier.group()]
        return now_utc() > due and group.lag + group.delayed == 3  # the log moves what is due when somebody asks for it

    await wait_until(are_there, what="all to be due")
    async with transport.subscribe(wanted) as consumer:
        assert await take_acked(consumer, 3) == [b"2", b"1", b"0"]

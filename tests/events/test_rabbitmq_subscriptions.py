"""Groups and subscriptions without one, as RabbitMQ keeps them: their beginning, their patterns and their members."""

from datetime import timedelta

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.errors import InvalidInput
from toska_common.events.amqp.errors import TopologyConflict
from toska_common.events.amqp.transport import AmqpTransport
from toska_common.events.transport import BEGINNING, Consumer, Message, Priority, Subscription
from toska_tests.event_carriers import publish, take, take_acked
from toska_tests.rabbit_rigs import Rig
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_a_subscription_of_nobodys_group_begins_where_it_says_and_goes_on_from_there(rig: Rig) -> None:
    where = {"dataversion": "1"}
    wanted = Subscription(rig.wanted.patterns, start=BEGINNING, ordered=True, prefetch=10, where=where)
    async with rig.open() as transport:
        await publish(transport, *rig.events(0, 2), *rig.events(2, 4, key="k"), *rig.events(4, 6))
        await publish(transport, *rig.events(100, 102, version=2))
        async with transport.subscribe(wanted) as consumer:
            first, *_, third = await take(consumer, 3)
            assert (first.event.data, third.event.data, third.offset) == (b"0", b"2", 2)
            await publish(transport, *rig.events(6, 7))
            rest = [delivery.event.data for delivery in await take(consumer, 3)]
            assert rest == [b"4", b"5", b"6"]  # the other of the key waits
            await third.ack()
            assert await take_acked(consumer) == [b"3"]


async def test_without_a_group_higher_priorities_go_first_as_well(rig: Rig) -> None:
    async with rig.open() as transport, transport.subscribe(Subscription(rig.wanted.patterns, prefetch=1)) as consumer:
        for number, priority in enumerate((1, 0, 2, 1)):
            (event,) = rig.events(number, number + 1)
            await transport.publish([Message(event, priority=Priority(priority))])
        assert await take_acked(consumer, 4) == [b"0", b"2", b"3", b"1"]


async def test_an_ordered_group_does_not_become_another_kind(rig: Rig) -> None:
    async with rig.open() as transport:
        async with transport.subscribe(rig.wanted):
            pass
        with pytest.raises(TopologyConflict, match="'workers' is not ordered"):
            async with transport.subscribe(Subscription(rig.wanted.patterns, group="workers", ordered=True)):
                pass


async def test_members_of_an_ordered_group_come_to_share_its_keys_and_keep_their_order(rig: Rig) -> None:
    wanted = Subscription(rig.wanted.patterns, group="workers", ordered=True, partitions=4, prefetch=8)
    seen: dict[str, list[int]] = {}
    whose: dict[str, set[str]] = {"first": set(), "second": set()}
    last: set[int] = set()
    stop = anyio.Event()

    async def work(name: str, consumer: Consumer) -> None:
        async for delivery in consumer:
            key = delivery.event.key or ""
            seen.setdefault(key, []).append(int(delivery.event.data))
            whose[name].add(key)
            await delivery.ack()

    async def load(transport: AmqpTransport) -> None:
        number = 0
        while not stop.is_set():
            await publish(transport, *(rig.carrier.event("a", b"%d" % number, key=f"k{key}") for key in range(8)))
            number += 1
        last.add(number - 1)

    async with (
        rig.open() as one,
        rig.open() as two,
        one.subscribe(wanted) as first,
        two.subscribe(wanted) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(work, "first", first)
        tasks.start_soon(work, "second", second)
        tasks.start_soon(load, one)
        await wait_until(lambda: bool(whose["first"]) and bool(whose["second"]), what="both to have some")
        stop.set()
        await wait_until(lambda: {max(numbers) for numbers in seen.values()} == last, what="all to be seen")
        tasks.cancel_scope.cancel()
    for numbers in seen.values():
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers))


async def test_a_group_has_the_patterns_of_who_subscribed_last(rig: Rig) -> None:
    async with rig.open() as one, rig.open() as two:
        async with one.subscribe(Subscription((rig.carrier.topic("a"), rig.carrier.topic("b")), group="workers")):
            pass
        wanted = Subscription((rig.carrier.topic("b"), rig.carrier.topic("c")), group="workers")
        async with two.subscribe(wanted) as consumer:
            await publish(one, *(rig.carrier.event(topic, topic.encode()) for topic in "abc"))
            assert await take_acked(consumer, 2) == [b"b", b"c"]
            (group,) = await one.administration.groups()
            assert (group.patterns, group.lag) == (wanted.patterns, 0)


async def test_without_a_log_nothing_begins_in_the_past_and_nothing_waits_for_ever(rig: Rig) -> None:
    async with rig.open(log="false") as transport:
        with pytest.raises(InvalidInput, match="log=false"):
            async with transport.subscribe(Subscription(rig.wanted.patterns, group="late", start=BEGINNING)):
                pass
        later = now_utc() + timedelta(milliseconds=50)
        await transport.publish([Message(event, deliver_at=later) for event in rig.events(0, 1)])
        async with rig.channel() as channel:

            async def given_on() -> bool:
                return bool((await channel.basic_get(f"{rig.namespace}.unwanted:last", no_ack=True)).body)

            await wait_until(given_on, what="the event that nobody wants")


async def test_the_management_api_fills_in_what_amqp_does_not_say(rig: Rig) -> None:
    async with (
        rig.open(management=rig.server.management_url) as transport,
        transport.subscribe(rig.wanted) as consumer,
    ):
        await publish(transport, *rig.events(0, 3))
        (first, *_) = await take(consumer, 3)
        await first.ack()

        async def known() -> bool:
            (group,) = await transport.administration.groups()
            return (group.unsettled, group.delivered, group.acked) == (2, 3, 1)

        await wait_until(known, what="the figures", every=0.2)

"""What goes wrong between us and RabbitMQ, on a real one: each fault has an outcome with a name."""

import os
import random
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from toska_common.errors import InvalidInput
from toska_common.events.amqp.errors import TopologyConflict
from toska_common.events.amqp.transport import AmqpTransport
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.transport import Consumer, Subscription
from toska_tests.event_carriers import publish, take, take_acked
from toska_tests.programs import alive
from toska_tests.rabbit_rigs import Rig, collect
from toska_tests.waiting import PATIENT_S, wait_until
from toska_tests.wires import Wire, wire_to

pytestmark = pytest.mark.anyio


async def test_nothing_that_was_confirmed_is_lost_when_the_broker_is_killed_under_load(rig: Rig) -> None:
    async with rig.open(window=50) as transport, transport.subscribe(rig.wanted) as consumer:
        rig.server.settle()
        confirmed: list[int] = []
        seen: list[int] = []
        stop = anyio.Event()

        async def load() -> None:
            number = 0
            while not stop.is_set():
                with anyio.fail_after(3 * PATIENT_S):
                    await publish(transport, *rig.events(number, number + 10))
                confirmed.extend(range(number, number + 10))
                number += 10

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load)
            await wait_until(lambda: len(confirmed) >= 200)
            processes = rig.server.processes()
            rig.server.kill()
            assert len(processes) >= 2
            assert alive(processes) == []
            before = len(confirmed)
            await rig.server.start()
            await wait_until(lambda: len(confirmed) >= before + 200, within=3 * PATIENT_S)
            stop.set()
        await collect(consumer, seen, until=len(confirmed))
        assert set(seen) >= set(confirmed)


async def test_a_publish_whose_connection_is_cut_is_sent_again_and_arrives(rig: Rig) -> None:
    async with (
        wire_to(rig.server.port) as wire,
        rig.open(rig.server.url_at(wire.port)) as transport,
        transport.subscribe(rig.wanted) as consumer,
    ):
        seen: list[int] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: collect(consumer, seen, until=900))
            for part in range(3):
                wire.cut_after(20_000)
                await publish(transport, *rig.events(300 * part, 300 * part + 300))
        assert set(seen) == set(range(900))


async def test_keys_keep_their_order_while_connections_of_both_sides_are_cut(rig: Rig) -> None:
    count = int(os.environ.get("TOSKA_EVENTS_CHURN", "1500"))  # with 100000 it takes some minutes
    wanted = Subscription(rig.wanted.patterns, group="workers", ordered=True, partitions=4, prefetch=50)
    dice = random.Random(7)
    seen: dict[str, list[int]] = {}
    total = 0

    async def work(consumer: Consumer, wire: Wire) -> None:
        nonlocal total
        next_cut = 200
        async for delivery in consumer:
            numbers = seen.setdefault(delivery.event.key or "", [])
            number = int(delivery.event.data)
            if number not in numbers[-200:]:
                total += 1
            numbers.append(number)
            await delivery.ack()
            if total >= next_cut:
                next_cut += dice.randrange(200, 500)
                await wire.cut()
            if total >= count:
                return

    async with (
        wire_to(rig.server.port) as sending,
        wire_to(rig.server.port) as receiving,
        rig.open(rig.server.url_at(sending.port)) as publisher,
        rig.open(rig.server.url_at(receiving.port)) as subscriber,
        subscriber.subscribe(wanted) as consumer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(work, consumer, receiving)
        for first in range(0, count, 50):
            if dice.random() < 0.2:
                sending.cut_after(dice.randrange(1, 12_000))
            numbers = range(first, first + 50)
            await publish(publisher, *(rig.carrier.event("a", b"%d" % n, key=f"k{n % 7}") for n in numbers))
    assert {number for numbers in seen.values() for number in numbers} == set(range(count))
    for numbers in seen.values():
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers))


async def test_what_was_not_acked_before_a_cut_comes_again_and_a_late_ack_is_for_nobody(rig: Rig) -> None:
    async with wire_to(rig.server.port) as wire:
        async with rig.open(rig.server.url_at(wire.port)) as transport, transport.subscribe(rig.wanted) as consumer:
            await publish(transport, *rig.events(0, 2))
            first, second = await take(consumer, 2)
            await wire.cut()
            again, following = await take(consumer, 2)
            assert {again.event.data, following.event.data} == {b"0", b"1"}
            assert again.attempt == following.attempt == 2
            await first.ack()
            await second.reject("late")
            await again.ack()
            await following.ack()
            await publish(transport, *rig.events(2, 3))
            assert await take_acked(consumer) == [b"2"]
        async with rig.open() as transport:
            (group,) = await transport.administration.groups()
            assert (group.lag, group.dead) == (0, 0)


async def test_a_subscription_of_nobodys_group_misses_nothing_over_a_cut(rig: Rig) -> None:
    gaps: list[str] = []
    wanted = Subscription((rig.carrier.topic("#"),), on_gap=lambda: gaps.append("a gap"))
    async with (
        wire_to(rig.server.port) as wire,
        rig.open() as publisher,
        rig.open(rig.server.url_at(wire.port)) as transport,
        transport.subscribe(wanted) as consumer,
    ):
        await publish(publisher, *rig.events(0, 3))
        assert await take_acked(consumer, 3) == [b"0", b"1", b"2"]
        await wire.cut()
        await publish(publisher, *rig.events(3, 6))
        assert await take_acked(consumer, 3) == [b"3", b"4", b"5"]
        await publish(publisher, *rig.events(6, 7))
        assert await take_acked(consumer) == [b"6"]
    assert gaps == []


async def test_where_no_log_is_kept_it_is_said_that_events_may_have_been_missed(rig: Rig) -> None:
    gaps: list[str] = []
    wanted = Subscription((rig.carrier.topic("#"),), on_gap=lambda: gaps.append("a gap"))
    async with (
        wire_to(rig.server.port) as wire,
        rig.open(rig.server.url_at(wire.port), log="false") as transport,
        transport.subscribe(wanted) as consumer,
    ):
        await publish(transport, *rig.events(0, 1))
        assert await take_acked(consumer) == [b"0"]
        assert gaps == []
        await wire.cut()
        await wait_until(lambda: gaps == ["a gap"], what="a gap is told of")


async def test_a_broker_that_is_away_is_warned_of_once(rig: Rig) -> None:
    with capture_logs() as logs:

        def said(level: str) -> list[str]:
            purposes = [entry for entry in logs if entry["event"] == "rabbitmq_unreachable"]
            return [entry["purpose"] for entry in purposes if entry["log_level"] == level]

        async with wire_to(rig.server.port) as wire, rig.open(rig.server.url_at(wire.port)):
            await wire.sever()
            await wait_until(lambda: len(said("debug")) >= 3, what="it is tried again and again")
    assert len(said("warning")) == len(set(said("warning"))), said("warning")


@pytest.mark.parametrize("piece", ["memory", "disk"])
async def test_a_broker_short_of_memory_or_disk_takes_nothing_and_still_hands_out(rig: Rig, piece: str) -> None:
    async with rig.open(confirm_within="300ms") as transport, transport.subscribe(rig.wanted) as consumer:
        await publish(transport, *rig.events(0, 2))
        rig.server.raise_alarm(piece)
        try:
            with pytest.raises(EventsUnavailable, match=r"did not confirm within 0\.3 s.*memory or disk"):
                while True:  # what was under way when the alarm was raised may still be confirmed
                    await publish(transport, *rig.events(2, 3))
            assert (await take_acked(consumer, 2)) == [b"0", b"1"]
        finally:
            rig.server.clear_alarm(piece)
        await wait_until(lambda: _publishes(transport, rig), what="publishing to go on")


async def _publishes(transport: AmqpTransport, rig: Rig) -> bool:
    try:
        await publish(transport, *rig.events(3, 4))
    except EventsUnavailable:
        return False
    return True


async def test_an_event_over_the_limit_is_refused_with_its_attributes_counted(rig: Rig) -> None:
    async with rig.open(max_bytes="2KiB") as transport:
        await publish(transport, rig.carrier.event("a", b"x" * 1024))
        with pytest.raises(EventTooLarge, match="2048 are allowed"):
            await publish(transport, rig.carrier.event("a", b"x" * 1024, attributes={"long": "y" * 1024}))


async def test_attributes_that_no_frame_could_hold_are_refused(rig: Rig) -> None:
    async with rig.open() as transport:
        attributes = {f"a{number}": "y" * 4096 for number in range(20)}
        with pytest.raises(InvalidInput, match="65536 are allowed"):
            await publish(transport, rig.carrier.event("a", attributes=attributes))


async def test_a_queue_that_is_deleted_under_its_consumer_is_made_again(rig: Rig) -> None:
    async with rig.open() as transport, transport.subscribe(rig.wanted) as consumer:
        await publish(transport, *rig.events(0, 1))
        await take_acked(consumer)
        async with rig.channel() as channel:
            await channel.queue_delete(f"{rig.namespace}.group.workers")

        async def arrives() -> bool:
            await publish(transport, *rig.events(1, 2))
            with anyio.move_on_after(0.2):
                return await take_acked(consumer) == [b"1"]
            return False

        await wait_until(arrives, what="the queue to be there again")


async def test_a_queue_that_is_not_ours_is_named_together_with_what_to_do(rig: Rig) -> None:
    queue = f"{rig.namespace}.group.workers"
    async with rig.channel() as channel:
        await channel.queue_declare(queue, durable=True)
        async with rig.open() as transport:
            with pytest.raises(TopologyConflict, match=r"rabbitmqctl delete_queue NAME") as caught:
                async with transport.subscribe(rig.wanted):
                    pass
            assert queue in caught.value.detail
            await channel.queue_delete(queue)
            async with transport.subscribe(rig.wanted) as consumer:
                await publish(transport, *rig.events(0, 1))
                assert await take_acked(consumer) == [b"0"]


async def test_an_exchange_that_is_not_ours_keeps_it_from_opening(rig: Rig) -> None:
    async with rig.channel() as channel:
        await channel.exchange_declare(exchange=f"{rig.namespace}.events", exchange_type="fanout", durable=True)
    with pytest.raises(TopologyConflict, match=f"{rig.namespace}.events"):
        async with rig.open():
            pass


async def test_a_channel_that_goes_on_refusing_is_replaced_by_another(rig: Rig) -> None:
    async with rig.open() as transport, rig.channel() as channel:
        with capture_logs() as logs:
            full: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
            queue = f"full-{rig.namespace}"
            await channel.queue_declare(queue, exclusive=True, arguments=full)
            await channel.queue_bind(queue, f"{rig.namespace}.events", routing_key="#")

            async def is_replaced() -> bool:
                with pytest.raises(EventsUnavailable, match="refused 1 of 1"):
                    await publish(transport, *rig.events(0, 1))
                return any("another channel" in str(entry.get("reason")) for entry in logs)

            await wait_until(is_replaced, what="the channel to be replaced")
        await channel.queue_delete(queue)
        await publish(transport, *rig.events(1, 2))

"""What goes wrong between us and RabbitMQ, on a real one: each fault has an outcome with a name."""

import os
import random
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import aiormq
import anyio
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from toska_common.clock import now_utc
from toska_common.errors import ConfigurationError, InvalidInput
from toska_common.events.amqp.errors import CredentialsRefused, TopologyConflict
from toska_common.events.amqp.names import DELIVERY_LIMIT
from toska_common.events.amqp.transport import AmqpTransport, open_amqp
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.event import Event
from toska_common.events.transport import BEGINNING, Consumer, Message, Priority, Subscription
from toska_tests.event_carriers import publish, rabbit_carrier, take, take_acked
from toska_tests.ports import free_port
from toska_tests.programs import alive
from toska_tests.rabbit_servers import PASSWORD, RabbitServer
from toska_tests.waiting import PATIENT_S, wait_until
from toska_tests.wires import Wire, wire_to

pytestmark = pytest.mark.anyio


class Rig:
    """A broker and a namespace of the test's own on it."""

    def __init__(self, server: RabbitServer) -> None:
        self.server = server
        self.namespace = f"t{os.urandom(4).hex()}"
        self.carrier = rabbit_carrier(server)
        self.wanted = Subscription((self.carrier.topic("#"),), group="workers")

    def open(self, url: str = "", **parameters: object) -> AbstractAsyncContextManager[AmqpTransport]:
        query = "&".join(f"{name}={value}" for name, value in {"namespace": self.namespace, **parameters}.items())
        return open_amqp(f"{url or self.server.url}?{query}")

    def events(self, first: int, last: int, **more: Any) -> list[Event]:
        return [self.carrier.event("a", str(number).encode(), **more) for number in range(first, last)]

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[AbstractChannel]:
        """A channel of somebody else's."""
        connection = await aiormq.connect(self.server.url)
        try:
            yield await connection.channel()
        finally:
            await connection.close()


@pytest.fixture
async def rig(rabbit: RabbitServer) -> Rig:
    await rabbit.wait_until_ready()
    return Rig(rabbit)


async def collect(consumer: Consumer, seen: list[int], *, until: int) -> None:
    """Take and ack until so many different ones came."""
    with anyio.fail_after(3 * PATIENT_S):
        async for delivery in consumer:
            seen.append(int(delivery.event.data))
            await delivery.ack()
            if len(set(seen)) == until:
                return


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
    wanted = Subscription((rig.carrier.topic("#"),))
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
                return bool((await channel.basic_get(f"{rig.namespace}.unwanted", no_ack=True)).body)

            await wait_until(given_on, what="the event that nobody wants")


async def test_credentials_that_are_refused_are_not_shown(rig: Rig) -> None:
    url = rig.server.url_at(rig.server.port, password="w%2Frong-secret")
    with pytest.raises(CredentialsRefused, match="credentials of the user 'toska' are refused") as caught:
        async with rig.open(url):
            pass
    assert "rong-secret" not in str(caught.value)


async def test_a_wrong_url_does_not_show_its_password() -> None:
    for url in (f"amqp://toska:{PASSWORD}@host/?colour=red", f"http://toska:{PASSWORD}@host", "amqp://u:s3cret@/"):
        with pytest.raises(ConfigurationError) as caught:
            async with open_amqp(url):
                pass
        assert PASSWORD not in str(caught.value)
        assert "s3cret" not in str(caught.value)


async def test_with_all_nodes_away_it_says_which(rig: Rig) -> None:
    nodes = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(EventsUnavailable) as caught:
        async with rig.open(f"amqp://toska:s3cret@{','.join(nodes)}/"):
            pass
    assert all(node in caught.value.detail for node in nodes)
    assert "s3cret" not in caught.value.detail


async def test_of_several_nodes_one_that_answers_is_enough(rig: Rig) -> None:
    credentials, _, place = rig.server.url.rpartition("@")
    async with rig.open(f"{credentials}@127.0.0.1:{free_port()},{place}") as transport:
        assert transport.connected


async def test_an_event_that_rabbitmq_gave_up_is_a_dead_letter_that_can_be_driven_again(rig: Rig) -> None:
    async with rig.open() as transport:
        async with transport.subscribe(rig.wanted):
            pass
        await publish(transport, *rig.events(7, 8))
        async with rig.channel() as channel:
            await _refuse_always(channel, f"{rig.namespace}.group.workers", DELIVERY_LIMIT + 1)
        await wait_until(lambda: _is_dead(transport), what="the dead letter")
        (letter,) = await transport.administration.dead_letters("workers")
        assert (letter.event.data, letter.reason) == (b"7", "RabbitMQ gave it up: delivery_limit")
        assert await transport.administration.dead_letter(letter.id) == letter
        assert await transport.administration.redrive([letter.id]) == 1
        async with transport.subscribe(rig.wanted) as consumer:
            (again,) = await take(consumer)
            assert (again.event.data, again.attempt) == (b"7", 1)


async def test_an_event_that_expired_in_its_queue_is_no_dead_letter(rig: Rig) -> None:
    async with rig.open() as transport:
        async with transport.subscribe(rig.wanted):
            pass
        soon = now_utc() + timedelta(milliseconds=5)
        await transport.publish([Message(event, expires_at=soon) for event in rig.events(0, 3)])
        await wait_until(lambda: _lags(transport, 0), what="the events to expire")
        assert await transport.administration.dead_letters() == []


async def test_a_message_that_is_no_event_goes_to_the_dead_letters(rig: Rig) -> None:
    async with rig.open() as transport, transport.subscribe(rig.wanted) as consumer:
        async with rig.channel() as channel:
            topic = rig.carrier.topic("a")
            await channel.basic_publish(b"what is this", exchange=f"{rig.namespace}.events", routing_key=topic)
        await publish(transport, *rig.events(0, 1))
        assert await take_acked(consumer) == [b"0"]
        await wait_until(lambda: _is_dead(transport), what="the dead letter")
        (letter,) = await transport.administration.dead_letters("workers")
        assert (letter.event.data, letter.event.topic) == (b"what is this", topic)
        assert "no event of CloudEvents" in letter.reason


async def test_events_of_other_languages_are_read_in_both_modes(rig: Rig) -> None:
    topic = rig.carrier.topic("a")
    binary = {"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/java"}
    binary |= {"cloudEvents:type": topic, "cloudEvents:region": "eu"}
    structured = f'{{"specversion":"1.0","id":"2","source":"/go","type":"{topic}","data":{{"n":2}}}}'.encode()
    async with rig.open() as transport, transport.subscribe(rig.wanted) as consumer:
        async with rig.channel() as channel:
            for headers, kind, body in (
                (binary, "text/plain", b"one"),
                ({}, "application/cloudevents+json; charset=utf-8", structured),
            ):
                properties = aiormq.spec.Basic.Properties(content_type=kind, headers=dict(headers))
                exchange = f"{rig.namespace}.events"
                await channel.basic_publish(body, exchange=exchange, routing_key=topic, properties=properties)
        first, second = [delivery.event for delivery in await take(consumer, 2)]
    assert (first.source, first.data, first.content_type, first.attributes) == (
        "/java",
        b"one",
        "text/plain",
        {"region": "eu"},
    )
    assert (second.source, second.data) == ("/go", b'{"n":2}')


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


async def _refuse_always(channel: AbstractChannel, queue: str, times: int) -> None:
    refused = 0
    done = anyio.Event()

    async def refuse(message: DeliveredMessage) -> None:
        nonlocal refused
        refused += 1
        await channel.basic_nack(message.delivery_tag or 0, requeue=True)
        if refused >= times:
            done.set()

    await channel.basic_consume(queue, refuse)
    with anyio.fail_after(PATIENT_S):
        await done.wait()


async def _is_dead(transport: AmqpTransport) -> bool:
    return len(await transport.administration.dead_letters("workers")) == 1


async def _lags(transport: AmqpTransport, lag: int) -> bool:
    (group,) = await transport.administration.groups()
    return group.lag == lag

"""Messages that RabbitMQ or somebody else had a hand in: given up, expired, no events at all, or of other languages."""

from datetime import timedelta

import aiormq
import anyio
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from toska_common.clock import now_utc
from toska_common.events.amqp.names import DELIVERY_LIMIT
from toska_common.events.amqp.transport import AmqpTransport
from toska_common.events.transport import Message
from toska_tests.event_carriers import publish, take, take_acked
from toska_tests.rabbit_rigs import Rig
from toska_tests.waiting import PATIENT_S, wait_until

pytestmark = pytest.mark.anyio


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

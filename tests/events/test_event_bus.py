"""The bus over a real log: handlers, retries, rejections, requests, and a broker that comes and goes."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import anyio
import pytest
from prometheus_client import CollectorRegistry
from toska_common import trace
from toska_common.errors import InvalidInput, UpstreamTimeout
from toska_common.events import (
    Event,
    EventBus,
    EventPayload,
    EventRefused,
    EventsUnavailable,
    EventTooLarge,
    Incoming,
    Message,
    Reject,
    Retry,
    Retrying,
)
from toska_common.events.codecs import Codec, KeyRing
from toska_common.events.requests import RequestRejected
from toska_common.events.transport import BEGINNING, DeadLetter
from toska_tests.event_carriers import LogHost
from toska_tests.waiting import PATIENT_S, wait_until


class OrderPlaced(EventPayload, topic="orders.order.placed", version=2):
    id: str
    total: float = 0.0


class PriceAsked(EventPayload, topic="prices.price.asked"):
    sku: str


class PriceQuoted(EventPayload, topic="prices.price.quoted"):
    sku: str
    cents: int


QUICK = Retrying(attempts=3, first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20))
BusOf = Callable[..., EventBus]


@pytest.fixture
def bus_of(event_log: LogHost) -> BusOf:
    def build(service: str = "orders", **options: Any) -> EventBus:
        return EventBus(service, lambda: event_log.connect(service=service), publishes=[OrderPlaced], **options)

    return build


@asynccontextmanager
async def standing(bus: EventBus) -> AsyncGenerator[EventBus]:
    """The bus, open, with its subscriptions in force."""
    async with bus.open():
        with anyio.fail_after(PATIENT_S):
            await bus.subscribed()
        yield bus


async def dead_letters(event_log: LogHost) -> list[DeadLetter]:
    async with event_log.connect() as transport:
        return await transport.administration.dead_letters()


async def until_dead(event_log: LogHost) -> DeadLetter:
    async def is_dead() -> bool:
        return bool(await dead_letters(event_log))

    await wait_until(is_dead, within=PATIENT_S, what="a dead letter")
    (letter,) = await dead_letters(event_log)
    return letter


async def seen_by(seen: list[Any], count: int = 1) -> None:
    async def are_there() -> bool:
        return len(seen) >= count

    await wait_until(are_there, within=PATIENT_S, what=f"{count} events in the handler")


async def test_a_typed_event_reaches_its_handler_with_its_trace(bus_of: BusOf) -> None:
    bus, seen, traces = bus_of(), list[Incoming[OrderPlaced]](), list[str]()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        seen.append(incoming)
        traces.append(trace.current_trace_id())

    async with standing(bus):
        token = trace.current.set(trace.new_trace())
        published = await bus.publish(OrderPlaced(id="o-1", total=3.5), key="o-1", attributes={"region": "eu"})
        asked_in = trace.current_trace_id()
        trace.current.reset(token)
        await seen_by(seen)
    (incoming,) = seen
    assert incoming.data == OrderPlaced(id="o-1", total=3.5)
    assert incoming.event == published
    assert (incoming.attempt, incoming.event.source, incoming.event.version) == (1, "/services/orders", 2)
    assert traces == [asked_in]


async def test_patterns_filters_and_plain_json(bus_of: BusOf) -> None:
    bus, seen = bus_of(), list[Any]()

    @bus.subscribe("stock.#", group="stock", where={"region": "eu"})
    async def take(incoming: Incoming[Any]) -> None:
        seen.append(incoming.data)

    async with standing(bus):
        for number, region in enumerate(["us", "eu", "us", "eu"]):
            await bus.publish(bus.event("stock.item.moved", {"n": number}, attributes={"region": region}))
        await seen_by(seen, 2)
    assert seen == [{"n": 1}, {"n": 3}]


async def test_a_handler_that_fails_is_called_again_and_at_last_there_is_a_dead_letter(
    bus_of: BusOf, event_log: LogHost
) -> None:
    bus, attempts = bus_of(), list[int]()

    @bus.subscribe(OrderPlaced, group="billing", retrying=QUICK)
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        attempts.append(incoming.attempt)
        raise RuntimeError("the password is hunter2")

    async with standing(bus):
        await bus.publish(OrderPlaced(id="o-1"))
        letter = await until_dead(event_log)
    assert attempts == [1, 2, 3]
    assert letter.reason == "the handler raised RuntimeError; that was attempt 3, the last one"
    assert (letter.group, letter.attempts, letter.event.topic) == ("billing", 3, "orders.order.placed")


async def test_a_handler_may_ask_for_the_event_again_or_refuse_it(bus_of: BusOf, event_log: LogHost) -> None:
    bus, attempts = bus_of(), list[int]()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        attempts.append(incoming.attempt)
        if incoming.attempt == 1:
            raise Retry("not yet", after=timedelta(milliseconds=10))
        raise Reject("no such customer")

    async with standing(bus):
        await bus.publish(OrderPlaced(id="o-1"))
        letter = await until_dead(event_log)
    assert (attempts, letter.reason) == ([1, 2], "no such customer")


async def test_a_handler_that_hangs_is_cancelled_and_tried_again(bus_of: BusOf) -> None:
    bus, attempts = bus_of(), list[int]()

    @bus.subscribe(OrderPlaced, group="billing", retrying=QUICK, timeout=timedelta(milliseconds=50))
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        attempts.append(incoming.attempt)
        if incoming.attempt == 1:
            await anyio.sleep_forever()

    async with standing(bus):
        await bus.publish(OrderPlaced(id="o-1"))
        await seen_by(attempts, 2)
    assert attempts == [1, 2]


async def test_a_payload_that_does_not_validate_is_a_dead_letter_at_once(bus_of: BusOf, event_log: LogHost) -> None:
    bus, seen = bus_of(), list[Any]()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        seen.append(incoming)

    async with standing(bus):
        await bus.publish(bus.event("orders.order.placed", {"id": 7}))
        letter = await until_dead(event_log)
    assert (letter.attempts, seen) == (1, [])
    assert letter.reason == "the data are no OrderPlaced: id: Input should be a valid string"


async def test_members_of_a_group_share_and_others_each_get_all(bus_of: BusOf) -> None:
    shared, everybody = list[str](), list[str]()
    buses = [bus_of(f"worker-{number}") for number in range(2)]
    for bus in buses:

        @bus.subscribe(OrderPlaced, group="billing")
        async def bill(incoming: Incoming[OrderPlaced]) -> None:
            shared.append(incoming.data.id)

        @bus.subscribe(OrderPlaced)
        async def look(incoming: Incoming[OrderPlaced]) -> None:
            everybody.append(incoming.data.id)

    async with standing(buses[0]) as one, standing(buses[1]):
        await one.publish_batch([Message(one.event(OrderPlaced(id=f"o-{number}"))) for number in range(20)])
        await seen_by(everybody, 40)
        await seen_by(shared, 20)
    assert sorted(shared) == sorted(f"o-{number}" for number in range(20))


async def test_a_request_is_answered_by_whoever_subscribed(bus_of: BusOf) -> None:
    asking, answering = bus_of("shop"), bus_of("prices")

    @answering.subscribe(PriceAsked, group="prices")
    async def quote(incoming: Incoming[PriceAsked]) -> PriceQuoted:
        if incoming.data.sku == "unknown":
            raise Reject("no such article")
        return PriceQuoted(sku=incoming.data.sku, cents=250)

    @asking.subscribe(PriceQuoted)
    async def never(incoming: Incoming[PriceQuoted]) -> None: ...

    async with standing(answering), standing(asking):
        answer = await asking.request(PriceAsked(sku="a"), within=timedelta(seconds=PATIENT_S))
        assert answer.data == PriceQuoted(sku="a", cents=250)
        with pytest.raises(RequestRejected, match="no such article"):
            await asking.request(PriceAsked(sku="unknown"), within=timedelta(seconds=PATIENT_S))


async def test_a_request_that_nobody_answers_ends_in_time(bus_of: BusOf) -> None:
    async with bus_of().open() as bus:
        with pytest.raises(UpstreamTimeout, match=r"nobody answered within 0\.3 s"):
            await bus.request(PriceAsked(sku="a"), within=timedelta(milliseconds=300))


async def test_an_answer_goes_to_inboxes_alone(bus_of: BusOf, event_log: LogHost) -> None:
    bus, seen = bus_of(), list[Any]()

    @bus.subscribe(PriceAsked, group="prices")
    async def quote(incoming: Incoming[PriceAsked]) -> PriceQuoted:
        seen.append(incoming)
        return PriceQuoted(sku="a", cents=1)

    async with standing(bus):
        await bus.publish(PriceAsked(sku="a"), attributes={"replyto": "mesh.route.changed", "correlationid": "1"})
        await seen_by(seen)
    async with event_log.connect() as transport:
        assert [item.event.topic async for item in transport.read(["#"], BEGINNING)] == ["prices.price.asked"]


async def test_what_is_closed_to_the_broker_is_open_to_the_handler(bus_of: BusOf, event_log: LogHost) -> None:
    bus, seen = bus_of(codec=Codec(compression="zstd", keys=KeyRing("k", {"k": bytes(32)}))), list[Any]()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        seen.append(incoming.data)

    async with standing(bus):
        await bus.publish(OrderPlaced(id="secret" * 1000))
        await seen_by(seen)
    assert seen == [OrderPlaced(id="secret" * 1000)]
    async with event_log.connect() as transport:
        (stored,) = [item async for item in transport.read(["#"], BEGINNING)]
    assert b"secret" not in stored.event.data
    assert len(stored.event.data) < 500


async def test_what_is_too_large_or_misnamed_is_refused_before_it_is_sent(bus_of: BusOf) -> None:
    bus = bus_of(max_bytes=1000)
    async with standing(bus):
        with pytest.raises(EventTooLarge, match="1000 are allowed"):
            await bus.publish(OrderPlaced(id="x" * 2000))
        with pytest.raises(EventTooLarge):
            bus.offer(OrderPlaced(id="x" * 2000))
        wrongs: list[dict[str, Any]] = [
            {"attributes": {"Region": "eu"}},
            {"attributes": {"id": "7"}},
            {"key": "k" * 256},
        ]
        for wrong in wrongs:
            with pytest.raises(InvalidInput):
                await bus.publish(OrderPlaced(id="o"), **wrong)


async def test_a_bus_opens_without_a_broker_and_publishes_when_it_is_there(bus_of: BusOf, event_log: LogHost) -> None:
    await event_log.stop()
    bus, seen = bus_of(), list[str]()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        seen.append(incoming.data.id)

    async with bus.open():
        assert not bus.connected
        with pytest.raises(EventsUnavailable):
            await bus.publish(OrderPlaced(id="lost"), within=timedelta(milliseconds=100))
        await event_log.start()
        await bus.subscribed()
        await event_log.stop()
        bus.offer(OrderPlaced(id="kept"))
        await event_log.start()
        await seen_by(seen)
        await event_log.restart()
        await bus.publish(OrderPlaced(id="after"), within=timedelta(seconds=PATIENT_S))
        await seen_by(seen, 2)
    assert seen[:1] == ["kept"]
    assert "after" in seen


async def test_what_is_in_hand_is_settled_before_the_bus_is_closed(bus_of: BusOf, event_log: LogHost) -> None:
    bus, begun, done = bus_of(), list[str](), list[str]()
    release = anyio.Event()

    @bus.subscribe(OrderPlaced, group="billing")
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        begun.append(incoming.data.id)
        await release.wait()
        done.append(incoming.data.id)

    async with standing(bus):
        await bus.publish(OrderPlaced(id="o-1"))
        await seen_by(begun)
        release.set()
    assert done == ["o-1"]
    async with event_log.connect() as transport:
        (group,) = await transport.administration.groups()
        assert (group.lag, group.unsettled, group.acked) == (0, 0, 1)


async def test_what_is_not_settled_in_time_comes_again(bus_of: BusOf) -> None:
    attempts = list[int]()

    def subscribed() -> EventBus:
        bus = bus_of()

        @bus.subscribe(OrderPlaced, group="billing")
        async def bill(incoming: Incoming[OrderPlaced]) -> None:
            attempts.append(incoming.attempt)
            if incoming.attempt == 1:
                await anyio.sleep_forever()

        return bus

    async with standing(subscribed()) as bus:
        await bus.publish(OrderPlaced(id="o-1"))
        await seen_by(attempts)
    async with subscribed().open():
        await seen_by(attempts, 2)
    assert attempts == [1, 2]


async def test_an_incompatible_publisher_is_stopped(bus_of: BusOf, event_log: LogHost) -> None:
    async def refuse(types: Any) -> bool:
        raise EventRefused("version 2 of orders.order.placed is not taken")

    async with bus_of(before_publishing=refuse).open() as bus:
        with pytest.raises(EventRefused):
            await bus.publish(OrderPlaced(id="o-1"))
    async with event_log.connect() as transport:
        assert [item async for item in transport.read(["#"], BEGINNING)] == []


async def test_what_happened_is_counted(bus_of: BusOf) -> None:
    registry = CollectorRegistry()
    bus, seen = bus_of(registry=registry), list[Any]()

    @bus.subscribe(OrderPlaced, group="billing", retrying=QUICK)
    async def bill(incoming: Incoming[OrderPlaced]) -> None:
        seen.append(incoming)
        if incoming.attempt == 1:
            raise Retry

    async with standing(bus):
        await bus.publish(OrderPlaced(id="o-1"))
        await bus.publish(bus.event("undeclared.topic"))
        await seen_by(seen, 2)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"toska_events_{name}", labels)

    assert value("published_total", topic="orders.order.placed") == 1
    assert value("published_total", topic="(other)") == 1
    assert value("handled_total", handler="bill", outcome="retried") == 1
    assert value("handled_total", handler="bill", outcome="handled") == 1
    assert value("in_hand", handler="bill") == 0


async def test_wrong_subscriptions_are_refused_when_they_are_made(bus_of: BusOf) -> None:
    bus = bus_of()
    with pytest.raises(InvalidInput):
        bus.subscribe("a..b")
    with pytest.raises(InvalidInput):
        bus.subscribe("a", group="not a name")
    with pytest.raises(InvalidInput):
        bus.subscribe()

    def handle(incoming: Incoming[Any]) -> None: ...

    with pytest.raises(TypeError, match="async"):
        bus.subscribe("a")(cast("Any", handle))


async def test_an_event_says_who_it_is_from(bus_of: BusOf) -> None:
    event = bus_of("orders").event("a.b", {"n": 1}, subject="s")
    assert isinstance(event, Event)
    assert (event.source, event.topic, event.data, event.subject) == ("/services/orders", "a.b", b'{"n":1}', "s")

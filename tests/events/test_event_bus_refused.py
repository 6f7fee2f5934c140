"""What a bus does with what is refused: an answer, an offer, a subscription. It and its service go on."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import anyio
import pytest
from toska_common.events import (
    EventBus,
    EventPayload,
    EventRefused,
    EventsUnavailable,
    Incoming,
    Reject,
    Retrying,
    SchemaRefused,
)
from toska_common.events.requests import RequestRejected
from toska_common.events.transport import BEGINNING, DeadLetter, Subscription
from toska_tests.event_carriers import LogHost, log_host
from toska_tests.waiting import PATIENT_S, wait_until

WITHIN = timedelta(seconds=PATIENT_S)


class PriceAsked(EventPayload, topic="prices.price.asked"):
    sku: str = "a"


class PriceQuoted(EventPayload, topic="prices.price.quoted"):
    text: str


BusOf = Callable[..., EventBus]


@pytest.fixture
def bus_of(event_log: LogHost) -> BusOf:
    def build(**options: Any) -> EventBus:
        return EventBus("prices", lambda: event_log.connect(service="prices"), publishes=[PriceAsked], **options)

    return build


async def dead_letters(event_log: LogHost) -> list[DeadLetter]:
    async with event_log.connect() as transport:
        return await transport.administration.dead_letters()


async def published(event_log: LogHost) -> list[str]:
    async with event_log.connect() as transport:
        return [item.event.topic async for item in transport.read(["#"], BEGINNING)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PriceQuoted(text="x" * (2 << 20)), "1048576 are allowed"),
        ({"text": "no payload"}, "is an EventPayload with a topic, and no dict"),
        (EventPayload(), "is an EventPayload with a topic, and no EventPayload"),
    ],
    ids=["too large", "a dict", "without a topic"],
)
async def test_an_answer_that_cannot_be_sent_is_told_to_who_asked_and_harms_nobody_else(
    bus_of: BusOf, event_log: LogHost, answer: Any, reason: str
) -> None:
    bus = bus_of()

    @bus.subscribe(PriceAsked, group="prices")
    async def quote(incoming: Incoming[PriceAsked]) -> PriceQuoted:
        return cast("PriceQuoted", answer) if incoming.data.sku == "a" else PriceQuoted(text="fine")

    async with bus.open():
        with pytest.raises(RequestRejected, match=reason):
            await bus.request(PriceAsked(), within=WITHIN)
        assert (await bus.request(PriceAsked(sku="b"), within=WITHIN)).data == {"text": "fine"}
    (letter,) = await dead_letters(event_log)
    assert reason in letter.reason


async def test_a_reason_that_cannot_be_sent_is_kept_with_the_dead_letter(bus_of: BusOf, event_log: LogHost) -> None:
    bus = bus_of()

    @bus.subscribe(PriceAsked, group="prices")
    async def quote(incoming: Incoming[PriceAsked]) -> None:
        raise Reject("not \ud800 text")

    async with bus.open():
        with anyio.fail_after(PATIENT_S):
            await bus.subscribed()
        await bus.publish(PriceAsked(), attributes={"replyto": "reply.a.b", "correlationid": "1"})

        async def is_dead() -> bool:
            return bool(await dead_letters(event_log))

        await wait_until(is_dead, within=PATIENT_S)
        await bus.publish(PriceAsked())


async def test_a_handlers_own_timeout_is_not_taken_for_the_subscriptions(bus_of: BusOf, event_log: LogHost) -> None:
    bus = bus_of()

    @bus.subscribe(PriceAsked, group="prices", retrying=Retrying(attempts=1))
    async def quote(incoming: Incoming[PriceAsked]) -> None:
        raise TimeoutError

    async with bus.open():
        with anyio.fail_after(PATIENT_S):
            await bus.subscribed()
        await bus.publish(PriceAsked())

        async def is_dead() -> bool:
            return bool(await dead_letters(event_log))

        await wait_until(is_dead, within=PATIENT_S)
    (letter,) = await dead_letters(event_log)
    assert "the handler raised TimeoutError" in letter.reason


async def test_a_reason_of_several_lines_reaches_who_asked(bus_of: BusOf) -> None:
    bus = bus_of()

    @bus.subscribe(PriceAsked, group="prices")
    async def quote(incoming: Incoming[PriceAsked]) -> None:
        raise Reject("no such article:\n\ta")

    async with bus.open():
        with pytest.raises(RequestRejected, match="no such article: a"):
            await bus.request(PriceAsked(), within=WITHIN)


async def test_an_offer_that_is_refused_keeps_no_other_out(event_log: LogHost) -> None:
    async with log_host(event_log.settings.home / "narrow", max_event_bytes=1024) as narrow:
        bus = EventBus("prices", lambda: narrow.connect(service="prices"))
        for text in ("a", "x" * 2000, "b"):  # what the log takes is less than what the bus does
            bus.offer(PriceQuoted(text=text))
        async with bus.open():

            async def are_published() -> bool:
                return len(await published(narrow)) == 2

            await wait_until(are_published, within=PATIENT_S)
            bus.offer(PriceQuoted(text="c"))
        assert len(await published(narrow)) == 3


async def test_offers_wait_while_the_schema_is_refused(bus_of: BusOf, event_log: LogHost) -> None:
    taken, asked = False, 0

    async def judge(types: Any) -> bool:
        nonlocal asked
        asked += 1
        if not taken:
            raise SchemaRefused("version 2 is not taken")
        return True

    async with bus_of(before_publishing=judge).open() as bus:
        bus.offer(PriceAsked())
        await wait_until(lambda: asked > 0, within=PATIENT_S)
        with pytest.raises(EventRefused):
            await bus.publish(PriceAsked())
        taken = True

        async def is_published() -> bool:
            return bool(await published(event_log))

        await wait_until(is_published, within=PATIENT_S)


async def test_a_subscription_that_is_refused_stands_once_it_may(bus_of: BusOf, event_log: LogHost) -> None:
    bus, seen = bus_of(), list[str]()

    @bus.subscribe(PriceAsked, group="prices")
    async def note(incoming: Incoming[PriceAsked]) -> None:
        seen.append(incoming.data.sku)

    async with event_log.connect() as transport:
        async with transport.subscribe(Subscription(("prices.#",), group="prices", ordered=True)), bus.open():
            await bus.publish(PriceAsked())
        async with bus.open():
            await wait_until(lambda: seen == ["a"], within=PATIENT_S)


async def test_who_uses_a_bus_that_is_not_open_is_told(bus_of: BusOf) -> None:
    bus = bus_of()
    with pytest.raises(EventsUnavailable, match="the bus was not opened"):
        await bus.publish(PriceAsked(), within=timedelta(milliseconds=20))
    with pytest.raises(EventsUnavailable, match="the bus was not opened"):
        await bus.request(PriceAsked())


async def test_who_cannot_reach_the_broker_is_told_why(bus_of: BusOf, event_log: LogHost) -> None:
    await event_log.stop()
    async with bus_of().open() as bus:
        with pytest.raises(EventsUnavailable, match=r"was not reached \(no event log at .*\) within 1 s"):
            await bus.publish(PriceAsked(), within=timedelta(seconds=1))
    await event_log.start()

"""What `toska_common.events.transport` promises, over everything that carries events durably."""

from datetime import timedelta

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.events.errors import EventTooLarge, UnknownDeadLetter
from toska_common.events.retrying import Retrying
from toska_common.events.transport import (
    BEGINNING,
    Start,
    Subscription,
    Transport,
)
from toska_tests.event_carriers import Carrier, numbered, publish, read_all, take, take_acked, wanting
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio
SOON = timedelta(milliseconds=50)


async def test_what_was_confirmed_is_there_after_a_restart(carrier: Carrier) -> None:
    async with carrier.connect() as transport:
        async with transport.subscribe(wanting(carrier)):
            pass
        await publish(transport, *numbered(carrier, "a", range(20)))
    await carrier.restart()
    async with carrier.connect() as transport, transport.subscribe(wanting(carrier)) as consumer:
        assert await take_acked(consumer, 20) == [str(number).encode() for number in range(20)]


async def test_every_attribute_of_an_event_arrives(carrier: Carrier, transport: Transport) -> None:
    event = carrier.event(
        "orders.placed",
        b"\x00\xff binary",
        content_type="application/octet-stream",
        subject="o-1 ü",
        schema="https://example.org/schema",
        key="customer 7",
        version=3,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        tracestate="a=1",
        attributes={"region": "eu", "empty": ""},
    )
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, event)
        (delivery,) = await take(consumer)
        assert delivery.event == event
        assert delivery.attempt == 1


async def test_a_group_gets_what_was_published_while_none_of_its_members_was_there(
    carrier: Carrier, transport: Transport
) -> None:
    await publish(transport, carrier.event("a", b"before the group"))
    async with transport.subscribe(wanting(carrier)):
        pass
    await publish(transport, carrier.event("a", b"meanwhile"))
    async with transport.subscribe(wanting(carrier)) as consumer:
        assert await take_acked(consumer) == [b"meanwhile"]


async def test_a_group_gets_what_matches_any_of_its_patterns_and_nothing_else(
    carrier: Carrier, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier, "orders.*", "stock.#")) as consumer:
        topics = ("orders", "orders.placed", "orders.placed.late", "stock", "stock.low.very", "other", "orders.paid")
        await publish(transport, *(carrier.event(topic, topic.encode()) for topic in topics))
        assert await take_acked(consumer, 4) == [b"orders.placed", b"stock", b"stock.low.very", b"orders.paid"]


async def test_an_event_that_matches_two_patterns_of_a_group_comes_once(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier, "a.*", "#")) as consumer:
        await publish(transport, carrier.event("a.b", b"1"), carrier.event("a.c", b"2"))
        assert await take_acked(consumer, 2) == [b"1", b"2"]


async def test_members_of_a_group_share_its_events(carrier: Carrier, transport: Transport) -> None:
    wanted = wanting(carrier, prefetch=2)
    async with transport.subscribe(wanted) as first, transport.subscribe(wanted) as second:
        await publish(transport, *numbered(carrier, "a", range(4)))
        given = [*await take(first, 2), *await take(second, 2)]
        assert sorted(delivery.event.data for delivery in given) == [b"0", b"1", b"2", b"3"]


async def test_groups_do_not_share_with_each_other(carrier: Carrier, transport: Transport) -> None:
    async with (
        transport.subscribe(wanting(carrier, group="one")) as one,
        transport.subscribe(wanting(carrier, group="two")) as two,
    ):
        await publish(transport, carrier.event("a", b"for both"))
        assert await take_acked(one) == await take_acked(two) == [b"for both"]


async def test_without_a_group_every_subscription_gets_everything_from_now_on(
    carrier: Carrier, transport: Transport
) -> None:
    await publish(transport, carrier.event("a", b"before"))
    wanted = wanting(carrier, group=None)
    async with transport.subscribe(wanted) as first, transport.subscribe(wanted) as second:
        await publish(transport, carrier.event("a", b"now"))
        assert await take_acked(first) == await take_acked(second) == [b"now"]
    await publish(transport, carrier.event("a", b"between"))
    async with transport.subscribe(wanted) as again:
        await publish(transport, carrier.event("a", b"later"))
        assert await take_acked(again) == [b"later"]


async def test_a_new_group_begins_where_it_says(carrier: Carrier, transport: Transport) -> None:
    await carrier.keep(transport, "a")
    await publish(transport, *numbered(carrier, "a", range(3)))
    stored_by = now_utc()
    await wait_until(lambda: now_utc() > stored_by + SOON)  # moments of two commits differ
    between = now_utc()
    await publish(transport, *numbered(carrier, "a", range(3, 6)))
    stored = await read_all(transport.read([carrier.topic("a")], BEGINNING))
    starts = {"beginning": BEGINNING, "time": Start(time=between), "offset": Start(offset=stored[4].offset)}
    expected = {"beginning": 0, "time": 3, "offset": 4}
    for name, start in starts.items():
        async with transport.subscribe(wanting(carrier, "a", group=name, start=start)) as consumer:
            count = 6 - expected[name]
            assert await take_acked(consumer, count) == [str(n).encode() for n in range(expected[name], 6)], name


async def test_a_start_means_nothing_to_a_group_that_exists(carrier: Carrier, transport: Transport) -> None:
    await carrier.keep(transport, "a")
    await publish(transport, carrier.event("a", b"old"))
    async with transport.subscribe(wanting(carrier, "a")):
        pass
    async with transport.subscribe(wanting(carrier, "a", start=BEGINNING)) as consumer:
        await publish(transport, carrier.event("a", b"new"))
        assert await take_acked(consumer) == [b"new"]


async def test_what_was_not_acked_comes_again_when_its_consumer_goes_and_says_so(
    carrier: Carrier, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, *numbered(carrier, "a", range(2)))
        first, second = await take(consumer, 2)
        await first.ack()
        assert (first.attempt, second.attempt) == (1, 1)
    async with transport.subscribe(wanting(carrier)) as consumer:
        (again,) = await take(consumer)
        assert (again.event.data, again.attempt) == (b"1", 2)


async def test_what_a_member_leaves_behind_goes_to_another(carrier: Carrier, transport: Transport) -> None:
    wanted = wanting(carrier, prefetch=1)
    async with transport.subscribe(wanted) as staying:
        async with carrier.connect() as other, other.subscribe(wanted) as leaving:
            await publish(transport, *numbered(carrier, "a", range(2)))
            (kept,), (left,) = await take(staying), await take(leaving)
            await kept.ack()
        (again,) = await take(staying)
        assert (again.event.data, again.attempt) == (left.event.data, 2)


async def test_no_more_than_the_prefetch_is_given_unsettled(carrier: Carrier, transport: Transport) -> None:
    async with (
        transport.subscribe(wanting(carrier, prefetch=3)) as small,
        transport.subscribe(wanting(carrier, prefetch=50)) as large,
    ):
        await publish(transport, *numbered(carrier, "a", range(40)))
        rest = await take(large, 37)
        given = await take(small, 3)
        with anyio.move_on_after(0.05):
            await take(small)
            raise AssertionError("a fourth")
        assert len({delivery.event.data for delivery in [*rest, *given]}) == 40


async def test_with_order_kept_the_next_of_a_key_waits_for_the_one_before(
    carrier: Carrier, transport: Transport
) -> None:
    wanted = wanting(carrier, ordered=True, prefetch=20)
    async with transport.subscribe(wanted) as consumer:
        await publish(
            transport,
            *numbered(carrier, "a", [1, 2, 3], key="one"),
            *numbered(carrier, "a", [11, 12], key="two"),
            carrier.event("a", b"free"),
        )
        given = {delivery.event.data: delivery for delivery in await take(consumer, 3)}
        assert set(given) == {b"1", b"11", b"free"}
        await given[b"11"].ack()
        (second,) = await take(consumer)
        assert second.event.data == b"12"
        await given[b"1"].reject("spoilt")
        (following,) = await take(consumer)
        assert following.event.data == b"2"


async def test_order_is_kept_across_members_and_the_death_of_one(carrier: Carrier, transport: Transport) -> None:
    wanted = wanting(carrier, ordered=True, prefetch=10)
    async with transport.subscribe(wanted):
        pass
    await publish(transport, *numbered(carrier, "a", range(6), key="k"))
    seen: list[bytes] = []
    async with transport.subscribe(wanted) as consumer:
        seen += await take_acked(consumer, 2)
        (unacked,) = await take(consumer)
        assert unacked.event.data == b"2"
    async with transport.subscribe(wanted) as consumer, transport.subscribe(wanted):
        pass
    async with transport.subscribe(wanted) as consumer:
        seen += await take_acked(consumer, 4)
    assert seen == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_a_retried_event_comes_again_after_its_wait_and_its_key_waits_with_it(
    carrier: Carrier, transport: Transport
) -> None:
    retrying = Retrying(first=SOON, factor=1)
    async with transport.subscribe(wanting(carrier, ordered=True, retrying=retrying)) as consumer:
        await publish(transport, *numbered(carrier, "a", [1, 2], key="k"))
        (first,) = await take(consumer)
        asked = anyio.current_time()
        await first.retry(SOON, "not yet")
        (again,) = await take(consumer)
        assert anyio.current_time() - asked >= SOON.total_seconds() - 0.002  # both clocks count whole milliseconds
        assert (again.event.data, again.attempt) == (b"1", 2)
        await again.ack()
        assert await take_acked(consumer) == [b"2"]


async def test_a_retry_survives_a_restart(carrier: Carrier) -> None:
    wanted = wanting(carrier, retrying=Retrying(first=SOON, factor=1))
    async with carrier.connect() as transport, transport.subscribe(wanted) as consumer:
        await publish(transport, carrier.event("a", b"1"))
        (first,) = await take(consumer)
        await first.retry(SOON, "not yet")
        await wait_until(lambda: _settled(transport, carrier), what="the retry to be noted")
    await carrier.restart()
    async with carrier.connect() as transport, transport.subscribe(wanted) as consumer:
        (again,) = await take(consumer)
        assert again.event.data == b"1"
        # What was sent to a consumer that went before it looked counts as given with RabbitMQ, and not with the log.
        assert again.attempt in (2, 3)
        await again.ack()


async def _settled(transport: Transport, carrier: Carrier) -> bool:
    (group,) = [one for one in await transport.administration.groups() if one.name == carrier.group()]
    return group.unsettled in (0, None) or (group.delivered or 0) > 1  # on a busy machine it came again meanwhile


async def test_a_rejected_event_is_kept_with_its_reason(carrier: Carrier, transport: Transport) -> None:
    administration = transport.administration
    event = carrier.event("a", b"bad", key="k", attributes={"region": "eu"})
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, event, carrier.event("a", b"good"))
        first, second = await take(consumer, 2)
        await first.reject("no such customer")
        await second.ack()
        await wait_until(lambda: _count_dead(transport, carrier, 1), what="the dead letter")
    (letter,) = await administration.dead_letters(carrier.group())
    assert (letter.event, letter.group, letter.attempts) == (event, carrier.group(), 1)
    assert letter.reason == "no such customer"
    assert await administration.dead_letter(letter.id) == letter


async def _count_dead(transport: Transport, carrier: Carrier, count: int) -> bool:
    return len(await transport.administration.dead_letters(carrier.group())) == count


async def test_an_event_whose_attempts_are_used_up_is_dead(carrier: Carrier, transport: Transport) -> None:
    wanted = wanting(carrier, retrying=Retrying(attempts=2, first=timedelta(milliseconds=1), factor=1))
    async with transport.subscribe(wanted) as consumer:
        await publish(transport, carrier.event("a", b"bad"))
        for attempt in (1, 2):
            (delivery,) = await take(consumer)
            assert delivery.attempt == attempt
            await delivery.retry(timedelta(milliseconds=1), f"failed {attempt}")
        await wait_until(lambda: _count_dead(transport, carrier, 1), what="the dead letter")
    (letter,) = await transport.administration.dead_letters(carrier.group())
    assert (letter.event.data, letter.attempts) == (b"bad", 2)
    assert "failed 2" in letter.reason


async def test_an_event_that_kills_its_consumers_is_dead_after_as_many_attempts(
    carrier: Carrier, transport: Transport
) -> None:
    wanted = wanting(carrier, retrying=Retrying(attempts=2), prefetch=1)
    async with transport.subscribe(wanted):
        pass
    await publish(transport, carrier.event("a", b"poison"), carrier.event("a", b"wholesome"))
    for attempt in (1, 2):
        async with carrier.connect() as dying, dying.subscribe(wanted) as consumer:
            (delivery,) = await take(consumer)
            assert (delivery.event.data, delivery.attempt) == (b"poison", attempt)
    async with transport.subscribe(wanted) as consumer:
        assert await take_acked(consumer) == [b"wholesome"]
        await wait_until(lambda: _count_dead(transport, carrier, 1), what="the dead letter")


async def test_dead_letters_are_driven_again_with_fresh_attempts_or_purged(
    carrier: Carrier, transport: Transport
) -> None:
    administration = transport.administration
    wanted = wanting(carrier, retrying=Retrying(attempts=1))
    async with transport.subscribe(wanted) as consumer:
        await publish(transport, *numbered(carrier, "a", range(3)))
        for delivery in await take(consumer, 3):
            await delivery.reject("not today")
        await wait_until(lambda: _count_dead(transport, carrier, 3), what="the dead letters")
        letters = await administration.dead_letters(carrier.group())
        assert [letter.id for letter in letters] == sorted(letter.id for letter in letters)
        assert {letter.event.data for letter in letters} == {b"0", b"1", b"2"}
        assert await administration.dead_letters(carrier.group(), limit=1, after=letters[0].id) == [letters[1]]
        assert await administration.redrive([letters[1].id]) == 1
        (again,) = await take(consumer)
        assert (again.event.data, again.attempt) == (letters[1].event.data, 1)
        await again.ack()
    assert await administration.purge([letters[0].id, letters[1].id]) == 1
    assert [one.id for one in await administration.dead_letters(carrier.group())] == [letters[2].id]
    with pytest.raises(UnknownDeadLetter):
        await administration.dead_letter(letters[0].id)
    assert await administration.redrive([letters[0].id]) == 0


async def test_only_events_with_the_attributes_that_are_asked_for_are_given(
    carrier: Carrier, transport: Transport
) -> None:
    wanted = wanting(carrier, where={"region": "eu", "partitionkey": "k"})
    async with transport.subscribe(wanted) as consumer:
        await publish(
            transport,
            carrier.event("a", b"us", key="k", attributes={"region": "us"}),
            carrier.event("a", b"keyless", attributes={"region": "eu"}),
            carrier.event("a", b"right", key="k", attributes={"region": "eu"}),
        )
        assert await take_acked(consumer) == [b"right"]


async def test_ephemeral_events_reach_who_listens_and_are_kept_for_nobody(
    carrier: Carrier, transport: Transport
) -> None:
    topic = f"ephemeral.{carrier.word}"
    wanted = Subscription((topic,))
    event = carrier.event("a", b"now")
    object.__setattr__(event, "topic", topic)
    await publish(transport, event)
    async with transport.subscribe(wanted) as first, transport.subscribe(wanted) as second:
        await publish(transport, event)
        assert await take_acked(first) == await take_acked(second) == [b"now"]
    assert topic not in {state.settings.name for state in await transport.administration.topics()}


async def test_of_a_call_with_an_event_that_is_too_large_nothing_is_published(
    carrier: Carrier, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier)) as consumer:
        with pytest.raises(EventTooLarge):
            await publish(transport, carrier.event("a", b"small"), carrier.event("a", b"x" * (40 << 20)))
        await publish(transport, carrier.event("a", b"after"))
        assert await take_acked(consumer) == [b"after"]


async def test_a_large_event_arrives_whole(carrier: Carrier, transport: Transport) -> None:
    data = bytes(range(256)) * 3000
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, carrier.event("a", data))
        assert await take_acked(consumer) == [data]


async def test_a_subscription_goes_on_over_a_restart(carrier: Carrier) -> None:
    async with (
        carrier.connect() as transport,
        transport.subscribe(wanting(carrier)) as shared,
        transport.subscribe(wanting(carrier, group=None)) as own,
    ):
        await publish(transport, carrier.event("a", b"before"))
        assert await take_acked(shared) == await take_acked(own) == [b"before"]
        await wait_until(lambda: _settled(transport, carrier), what="the ack to arrive")
        await carrier.restart()
        await wait_until(lambda: transport.connected, what="the connection")
        # What carries events forgets subscriptions of nobody's group when it stops: they are open again by and by.
        async with carrier.connect() as other:
            await wait_until(lambda: _members(other, carrier, 1), what="the subscription")
            await publish(other, carrier.event("a", b"after"))
        assert await take_acked(shared) == [b"after"]


async def _members(transport: Transport, carrier: Carrier, count: int) -> bool:
    return [one.members for one in await transport.administration.groups() if one.name == carrier.group()] == [count]


async def test_publishers_at_once_lose_nothing_and_double_nothing(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier, prefetch=200)) as consumer:
        async with anyio.create_task_group() as group:
            for start in range(0, 200, 20):
                group.start_soon(publish, transport, *numbered(carrier, "a", range(start, start + 20)))
        seen = await take_acked(consumer, 200)
    assert sorted(map(int, seen)) == list(range(200))

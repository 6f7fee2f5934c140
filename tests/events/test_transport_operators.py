"""What operators see of every durable transport, and do to it: topics, groups, what is kept."""

from datetime import timedelta

import pytest
from toska_common.clock import now_utc
from toska_common.errors import Conflict
from toska_common.events.errors import UnknownGroup, UnknownTopic
from toska_common.events.transport import (
    BEGINNING,
    Start,
    TopicSettings,
    Transport,
)
from toska_tests.event_carriers import Carrier, numbered, publish, read_all, take, take_acked, wanting

pytestmark = pytest.mark.anyio


async def test_what_is_kept_can_be_read_again(carrier: Carrier, transport: Transport) -> None:
    await carrier.keep(transport, "a", "b")
    await publish(transport, *numbered(carrier, "a", range(5)), carrier.event("b", b"other"))
    stored = await read_all(transport.read([carrier.topic("a")], BEGINNING))
    assert [one.event.data for one in stored] == [b"0", b"1", b"2", b"3", b"4"]
    assert [one.offset for one in stored] == sorted({one.offset for one in stored})
    assert all(abs((now_utc() - one.stored_at).total_seconds()) < 60 for one in stored)
    later = await read_all(transport.read([carrier.topic("a")], Start(offset=stored[3].offset)))
    assert later == stored[3:]
    assert await read_all(transport.read([carrier.topic("a")], BEGINNING, limit=2)) == stored[:2]
    assert await read_all(transport.read([carrier.topic("nothing")], BEGINNING)) == []
    assert await read_all(transport.read([carrier.topic("a")], Start(time=now_utc() + timedelta(hours=1)))) == []


async def test_topics_say_what_is_in_them_and_how_they_are_kept(carrier: Carrier, transport: Transport) -> None:
    administration = transport.administration
    settings = TopicSettings(
        carrier.topic("a"), max_age=timedelta(hours=1), max_bytes=1 << 20, description="what happens"
    )
    await administration.put_topic(settings)
    await publish(transport, *numbered(carrier, "a", range(3)))
    (state,) = [one for one in await administration.topics() if one.settings.name == settings.name]
    assert state.settings == settings
    if carrier.counts:
        assert (state.events, state.published) == (3, 3)
        assert state.last_at is not None
        assert state.first_offset is not None
        assert state.last_offset is not None
        assert state.last_offset > state.first_offset
    else:
        assert (state.events, state.published) == (None, None)
    await administration.delete_topic(settings.name)
    assert settings.name not in {one.settings.name for one in await administration.topics()}
    with pytest.raises(UnknownTopic):
        await administration.delete_topic(settings.name)


async def test_groups_say_how_far_they_are(carrier: Carrier, transport: Transport) -> None:
    administration = transport.administration
    async with transport.subscribe(wanting(carrier, "a", prefetch=2)) as consumer:
        await publish(transport, *numbered(carrier, "a", range(5)))
        first, _ = await take(consumer, 2)
        await first.ack()
        await take(consumer)
        (state,) = [one for one in await administration.groups() if one.name == carrier.group()]
        assert (state.members, state.patterns) == (1, (carrier.topic("a"),))
        assert (state.lag, state.unsettled, state.delayed, state.dead) == (2, 2 if carrier.counts else None, 0, 0)
        with pytest.raises(Conflict):
            await administration.delete_group(carrier.group())
    await administration.delete_group(carrier.group())
    assert carrier.group() not in {one.name for one in await administration.groups()}
    with pytest.raises(UnknownGroup):
        await administration.delete_group(carrier.group())


async def test_a_deleted_group_begins_anew(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier)):
        pass
    await publish(transport, carrier.event("a", b"old"))
    await transport.administration.delete_group(carrier.group())
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, carrier.event("a", b"new"))
        assert await take_acked(consumer) == [b"new"]


async def test_a_group_is_moved_to_where_an_operator_wants_it(carrier: Carrier, transport: Transport) -> None:
    await carrier.keep(transport, "a")
    administration = transport.administration
    async with transport.subscribe(wanting(carrier, "a")) as consumer:
        await publish(transport, *numbered(carrier, "a", range(4)))
        await take_acked(consumer, 2)
        await take(consumer)
        with pytest.raises(Conflict):
            await administration.seek(carrier.group(), BEGINNING)
    await administration.seek(carrier.group(), BEGINNING)
    async with transport.subscribe(wanting(carrier, "a")) as consumer:
        (first,) = await take(consumer)
        assert (first.event.data, first.attempt) == (b"0", 1)
        await first.ack()
        assert await take_acked(consumer, 3) == [b"1", b"2", b"3"]
    with pytest.raises(UnknownGroup):
        await administration.seek(carrier.group("nobody"), BEGINNING)


async def test_a_group_that_was_moved_to_now_has_nothing_to_do(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, *numbered(carrier, "a", range(4)))
        await take(consumer)
    await transport.administration.seek(carrier.group(), Start())
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, carrier.event("a", b"new"))
        assert await take_acked(consumer) == [b"new"]


async def test_of_a_deleted_topic_groups_get_nothing_more(carrier: Carrier, transport: Transport) -> None:
    await carrier.keep(transport, "a", "b")
    async with transport.subscribe(wanting(carrier, "a", "b")):
        pass
    await publish(transport, *numbered(carrier, "a", range(3)), carrier.event("b", b"kept"))
    await transport.administration.delete_topic(carrier.topic("a"))
    async with transport.subscribe(wanting(carrier, "a", "b")) as consumer:
        assert await take_acked(consumer) == [b"kept"]
    assert await read_all(transport.read([carrier.topic("a")], BEGINNING)) == []

"""Redis pub/sub on a real Redis: what it carries, what it loses, and what it refuses."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs
from toska_common.clock import now_utc
from toska_common.errors import ConfigurationError, InvalidInput
from toska_common.events.errors import EventRefused, EventsUnavailable, EventTooLarge
from toska_common.events.opening import open_transport
from toska_common.events.redis.globs import Wanted
from toska_common.events.transport import BEGINNING, Message, Subscription, TopicSettings, Transport
from toska_tests.event_carriers import Carrier, publish, read_all, take, take_acked
from toska_tests.redis_servers import RedisServer, redis_server
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    with redis_server(tmp_path, password="s3cret") as found:
        await found.start()
        yield found


@pytest.fixture
async def carrier(server: RedisServer) -> Carrier:
    return Carrier("redis", lambda: open_transport(server.url.removesuffix("/0"), home=Path()), server.start)


@pytest.fixture
async def transport(carrier: Carrier) -> AsyncGenerator[Transport]:
    async with carrier.connect() as found:
        yield found


def wanting(carrier: Carrier, *patterns: str, **more: object) -> Subscription:
    return Subscription(tuple(carrier.topic(one) for one in patterns or ("#",)), **more)  # pyright: ignore[reportArgumentType]


async def test_every_attribute_arrives_at_each_who_listens(carrier: Carrier, transport: Transport) -> None:
    assert not transport.durable
    event = carrier.event(
        "a",
        b"\x00\xff",
        content_type="application/octet-stream",
        subject="ü",
        key="k",
        version=2,
        attributes={"region": "eu"},
    )
    async with transport.subscribe(wanting(carrier)) as one, transport.subscribe(wanting(carrier)) as two:
        await publish(transport, event)
        for consumer in (one, two):
            (delivery,) = await take(consumer)
            assert (delivery.event, delivery.attempt, delivery.offset) == (event, 1, None)


async def test_only_what_matches_comes_and_once(carrier: Carrier, transport: Transport) -> None:
    wanted = wanting(carrier, "orders.*", "orders.placed", "stock.#", "#.late", where={"region": "eu"})
    topics = ["orders", "orders.placed", "orders.placed.late", "stock", "stock.low", "other", "late", "orders.paid"]
    async with transport.subscribe(wanted) as consumer:
        await publish(
            transport,
            carrier.event("orders.placed", b"elsewhere", attributes={"region": "us"}),
            *(carrier.event(topic, topic.encode(), attributes={"region": "eu"}) for topic in topics),
        )
        expected = ["orders.placed", "orders.placed.late", "stock", "stock.low", "late", "orders.paid"]
        assert await take_acked(consumer, len(expected)) == [topic.encode() for topic in expected]


async def test_what_nobody_listens_to_is_lost(carrier: Carrier, transport: Transport) -> None:
    await publish(transport, carrier.event("a", b"before"))
    async with transport.subscribe(wanting(carrier)) as consumer:
        await publish(transport, carrier.event("a", b"now"))
        assert await take_acked(consumer) == [b"now"]


async def test_a_retry_comes_again_in_the_same_process_and_a_rejected_event_is_dropped(
    carrier: Carrier, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier, prefetch=1)) as consumer:
        await publish(transport, carrier.event("a", b"1"))
        (first,) = await take(consumer)
        await first.retry(timedelta(milliseconds=1), "not yet")
        (again,) = await take(consumer)
        assert (again.event.data, again.attempt) == (b"1", 2)
        await again.reject("no")
        await again.ack()
        await publish(transport, carrier.event("a", b"2"))
        assert await take_acked(consumer) == [b"2"]
    assert await transport.administration.dead_letters() == []


async def test_no_more_than_the_prefetch_is_given_unsettled(carrier: Carrier, transport: Transport) -> None:
    async with transport.subscribe(wanting(carrier, prefetch=2)) as consumer:
        await publish(transport, *(carrier.event("a", str(number).encode()) for number in range(3)))
        first, _ = await take(consumer, 2)
        with anyio.move_on_after(0.05):
            await take(consumer)
            raise AssertionError("a third")
        await first.ack()
        assert await take_acked(consumer) == [b"2"]


async def test_what_would_need_keeping_is_refused(carrier: Carrier, transport: Transport) -> None:
    for field, more in {"group": {"group": "g"}, "ordered": {"ordered": True}, "start": {"start": BEGINNING}}.items():
        with pytest.raises(InvalidInput, match=f"{field}: Redis pub/sub keeps nothing"):
            transport.subscribe(wanting(carrier, **more))
    with pytest.raises(InvalidInput):
        await read_all(transport.read([carrier.topic("a")], BEGINNING))
    later = Message(carrier.event("a"), deliver_at=now_utc() + timedelta(hours=1))
    with pytest.raises(EventRefused, match="scheduled"):
        await transport.publish([later])
    with pytest.raises(EventRefused):
        await transport.administration.put_topic(TopicSettings("a"))
    with pytest.raises(EventTooLarge):
        await publish(transport, carrier.event("a", b"x" * (2 << 20)))


async def test_a_redis_that_was_away_is_said_to_be_once_and_so_is_what_may_be_missed(
    carrier: Carrier, server: RedisServer, transport: Transport
) -> None:
    gaps: list[str] = []
    noting = wanting(carrier, on_gap=lambda: gaps.append("a gap"))
    with capture_logs() as logs:
        async with transport.subscribe(noting):
            assert gaps == []
            server.kill()
            with pytest.raises(EventsUnavailable):
                await publish(transport, carrier.event("a", b"lost"))
            assert not transport.connected

            def tried_again() -> bool:
                return [entry["event"] for entry in logs].count("redis_subscription_lost") >= 3

            await wait_until(tried_again, what="the subscription is tried again")
            await server.start()
            await wait_until(lambda: gaps == ["a gap"], what="it is said that events may have been missed")
    lost = [entry["log_level"] for entry in logs if entry["event"] == "redis_subscription_lost"]
    assert (lost[0], {*lost[1:]}) == ("warning", {"debug"})


async def test_what_is_said_after_a_redis_came_back_is_heard(
    carrier: Carrier, server: RedisServer, transport: Transport
) -> None:
    async with transport.subscribe(wanting(carrier)) as consumer:
        server.kill()
        await server.start()

        async def arrives() -> bool:
            await publish(transport, carrier.event("a", b"again"))
            with anyio.move_on_after(0.1):
                return await take_acked(consumer) == [b"again"]
            return False

        await wait_until(arrives, what="the subscription")
        await wait_until(lambda: transport.connected, what="the connection")


async def test_what_is_wrong_at_the_start_is_said_without_the_password(server: RedisServer) -> None:
    with pytest.raises(EventsUnavailable, match="refuses these credentials") as caught:
        async with open_transport(server.url.replace("s3cret", "wr0ng"), home=Path()):
            pass
    assert "wr0ng" not in str(caught.value)
    for url in ("redis://", "redis://:s3cret@h/?colour=red", "redis://:s3cret@h:port"):
        with pytest.raises(ConfigurationError) as refused:
            async with open_transport(url, home=Path()):
                pass
        assert "s3cret" not in str(refused.value)


def test_a_message_counts_once_however_many_subscriptions_it_falls_under() -> None:
    wanted = Wanted("n", ("a.*", "a.#", "a.b", "#"))
    assert wanted.channels == ("n:a.b",)
    assert wanted.globs == ("n:a.*", "n:a*", "n:*")
    assert wanted.takes("n:a.b", None)
    assert not wanted.takes("n:a.b", "n:a.*")
    assert [glob for glob in wanted.globs if wanted.takes("n:a.c", glob)] == ["n:a.*"]
    assert [glob for glob in wanted.globs if wanted.takes("n:z", glob)] == ["n:*"]
    assert not Wanted("n", ("a.*",)).takes("n:a.b.c", "n:a.*")

"""The embedded log in hardship: no room left, events as large as may be, and clients that ask for very much at once."""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from toska_common.clock import now_utc
from toska_common.errors import InvalidInput
from toska_common.events import Retrying
from toska_common.events.embedded.frames import FrameReader, Kind, json_frame
from toska_common.events.embedded.paths import socket_path
from toska_common.events.embedded.records import Publication, encode_head
from toska_common.events.errors import LogFull, UnknownGroup
from toska_common.events.event import Event
from toska_common.events.transport import Message, Subscription, TopicSettings, Transport
from toska_events.log.file import LogFile
from toska_tests.event_carriers import LogHost, log_host, publish, take, take_acked
from toska_tests.waiting import PATIENT_S, wait_until

pytestmark = pytest.mark.anyio

LARGEST = 16 << 20


@pytest.fixture
async def roomy(tmp_path: Path) -> AsyncGenerator[LogHost]:
    """A log that takes the largest events that can be allowed."""
    async with log_host(tmp_path, max_event_bytes=LARGEST) as host:
        yield host


@pytest.fixture
async def small(tmp_path: Path) -> AsyncGenerator[LogHost]:
    """A log that is soon full."""
    async with log_host(tmp_path, max_bytes=LARGEST, retention_interval=timedelta(hours=1)) as host:
        yield host


def event(data: bytes = b"{}", topic: str = "a.b") -> Event:
    return Event(topic=topic, source="/tests", id=os.urandom(8).hex(), time=now_utc(), data=data)


async def fill(transport: Transport) -> None:
    """Publish to a group that takes nothing, until there is no room for the smallest event."""
    async with transport.subscribe(Subscription(("#",), group="behind")):
        pass
    for size in (1 << 20, 10_000, 1):
        with pytest.raises(LogFull):
            while True:
                await transport.publish([Message(event(os.urandom(size))) for _ in range(5)])


async def test_a_client_may_open_hundreds_of_subscriptions_at_once_and_again_after_an_outage(
    event_log: LogHost,
) -> None:
    count, had = 200, list[int]()
    async with event_log.connect() as transport, anyio.create_task_group() as group:

        async def follow(number: int) -> None:
            async with transport.subscribe(Subscription((f"a.b{number}",))) as consumer:
                opened.append(number)
                await take_acked(consumer)
                had.append(number)

        opened: list[int] = []
        for number in range(count):
            group.start_soon(follow, number)
        await wait_until(lambda: len(opened) == count, within=PATIENT_S, what="every subscription")
        await event_log.restart()
        await wait_until(lambda: transport.connected, within=PATIENT_S)
        await publish(transport, *(event(topic=f"a.b{number}") for number in range(count)))
        await wait_until(lambda: len(had) == count, within=PATIENT_S, what="an event for each")


async def test_many_calls_at_once_are_answered_one_after_the_other(event_log: LogHost) -> None:
    answered: list[int] = []
    async with event_log.connect() as transport, anyio.create_task_group() as group:

        async def ask() -> None:
            answered.append(len(await transport.administration.groups()))

        for _ in range(300):
            group.start_soon(ask)
    assert answered == [0] * 300


async def test_what_a_dead_consumer_had_in_hand_is_handed_over_however_large_it_is(roomy: LogHost) -> None:
    subscription = Subscription(("a.b",), group="g")
    async with roomy.connect() as transport:
        async with AsyncExitStack() as dying:
            for _ in range(3):
                consumer = await dying.enter_async_context(transport.subscribe(subscription))
                await publish(transport, event(os.urandom(12 << 20)))
                await take(consumer)
        async with transport.subscribe(subscription) as heir:
            for _ in range(3):
                (again,) = await take(heir)
                assert again.attempt == 2
                await again.ack()


async def test_dead_letters_are_listed_however_large_they_are(roomy: LogHost) -> None:
    async with roomy.connect() as transport:
        async with transport.subscribe(Subscription(("a.b",), group="g")) as consumer:
            for _ in range(3):
                await publish(transport, event(os.urandom(7 << 20)))
                (delivery,) = await take(consumer)
                await delivery.reject("too much")
        found: list[str] = []
        while page := await transport.administration.dead_letters("g", after=found[-1] if found else ""):
            found += [letter.id for letter in page]
        assert len(found) == 3
        assert await transport.administration.purge(found) == 3


@pytest.mark.parametrize("attempts", [2**33, 2**70])
async def test_a_subscription_with_numbers_beyond_all_bounds_is_refused_and_harms_nobody(
    event_log: LogHost, attempts: int
) -> None:
    async with event_log.connect() as transport:
        with pytest.raises(InvalidInput, match="1 to 1000000 attempts"):
            async with transport.subscribe(Subscription(("a.b",), group="g", retrying=Retrying(attempts=attempts))):
                pass
        await publish(transport, event())
    assert event_log.crashes == []


async def test_a_full_log_takes_new_groups_and_is_emptied_by_those_that_go(small: LogHost) -> None:
    async with small.connect() as transport:
        await fill(transport)
        for number in range(100):
            async with transport.subscribe(Subscription(("a.b",), group=f"{'g' * 70}{number}")):
                pass
            await transport.administration.delete_group(f"{'g' * 70}{number}")
        await transport.administration.delete_topic("a.b")
        await publish(transport, event())
    assert small.crashes == []


async def test_what_a_full_log_has_no_room_for_is_refused_and_it_goes_on(small: LogHost) -> None:
    async with small.connect() as transport:
        await fill(transport)
        with pytest.raises(LogFull):
            for number in range(1000):
                await transport.administration.put_topic(TopicSettings(f"t{number}", description="x" * 1000))
        known = {state.settings.name for state in await transport.administration.topics()}
        await small.restart()
        await wait_until(lambda: transport.connected, within=PATIENT_S)
        # What was refused is not there, and what is there was kept.
        assert {state.settings.name for state in await transport.administration.topics()} == known
        with pytest.raises(UnknownGroup):
            await transport.administration.delete_group("nobody")
    assert small.crashes == []


def test_a_topic_that_could_not_be_stored_leaves_its_number_to_the_next(tmp_path: Path) -> None:
    file = LogFile.open(tmp_path / "log.sqlite")
    with pytest.raises(OverflowError):
        file.put_topic("first", "", 2**70)
    assert file.topics.find("first") is None
    for topic in ("second", "first"):
        file.append([Publication(topic, encode_head(event(topic=topic)), b"{}", 1, 0, 0)], now=1)
    assert len({topic.id for topic in file.topics.all()}) == 2
    file.close()


@asynccontextmanager
async def breaking_log(home: Path) -> AsyncGenerator[anyio.Event]:
    """Something in a log's place that welcomes its clients, and goes when they subscribe; the event tells of it."""
    subscribed = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        frames = FrameReader()
        async with stream:
            await stream.send(json_frame(Kind.WELCOME, {"protocol": 1, "access": "admin", "max_event_bytes": 1000}))
            while not subscribed.is_set():
                if any(kind == Kind.SUBSCRIBE for kind, _ in frames.feed(await stream.receive())):
                    subscribed.set()

    async with await anyio.create_unix_listener(socket_path(home)) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield subscribed
        group.cancel_scope.cancel()


async def test_what_was_in_hand_comes_again_though_the_connection_breaks_twice(event_log: LogHost) -> None:
    async with event_log.connect() as transport, transport.subscribe(Subscription(("#",))) as consumer:
        await publish(transport, event(b"1"), event(b"2"))
        first, _ = await take(consumer, 2)
        await first.ack()
        await event_log.stop()
        async with breaking_log(event_log.settings.home) as subscribed:
            with anyio.fail_after(PATIENT_S):
                await subscribed.wait()
        await event_log.start()
        (again,) = await take(consumer)
        assert (again.event.data, again.attempt) == (b"2", 2)


async def test_a_group_that_is_deleted_before_its_first_member_is_in_it_is_made_again(event_log: LogHost) -> None:
    administrator = event_log.hosted.administrator
    async with event_log.connect() as transport, anyio.create_task_group() as group:

        async def delete() -> None:
            while "g" not in event_log.hosted.broker.groups:
                await anyio.lowlevel.checkpoint()
            await administrator.delete_group("g")

        group.start_soon(delete)
        async with transport.subscribe(Subscription(("a.b",), group="g")) as consumer:
            await publish(transport, event(b"1"))
            assert await take_acked(consumer) == [b"1"]
            group.cancel_scope.cancel()

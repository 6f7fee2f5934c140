"""The embedded log's process is killed: between any two of its steps, and at random while events pour in."""

import contextlib
import os
import random
from collections import Counter, defaultdict
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.events.errors import EventsUnavailable
from toska_common.events.event import Event
from toska_common.events.retrying import Retrying
from toska_common.events.transport import (
    BEGINNING,
    Consumer,
    DeadLetter,
    Delivery,
    Message,
    Stored,
    Subscription,
    Transport,
)
from toska_tests.event_carriers import read_all
from toska_tests.killed_logs import KilledLog, killed_log
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio

LONG = bool(os.environ.get("TOSKA_EVENTS_KILLS"))
STATEMENTS = range(1, 110) if LONG else range(2, 110, 14)
EVENTS = 100_000 if LONG else 2_500
SUBSCRIPTION = Subscription(
    ("work.#",),
    group="workers",
    ordered=True,
    prefetch=200,
    retrying=Retrying(attempts=1000, first=timedelta(milliseconds=1), factor=1),
)


def event(number: int, *, keys: int) -> Event:
    name = str(number)
    return Event(
        topic="work.done", source="/tests", id=name, time=now_utc(), data=name.encode(), key=f"k{number % keys}"
    )


async def publish_surely(transport: Transport, events: list[Event]) -> None:
    """Publish until it is confirmed, as an outbox does: the same events again."""
    while True:
        with contextlib.suppress(EventsUnavailable):
            await transport.publish([Message(one) for one in events])
            return


@contextlib.asynccontextmanager
async def connected(log: KilledLog):
    """A connection, once there is somebody to connect to."""
    async with contextlib.AsyncExitStack() as stack:
        reached: list[Transport] = []

        async def is_reached() -> bool:
            with contextlib.suppress(EventsUnavailable):
                reached.append(await stack.enter_async_context(log.connect()))
            return bool(reached)

        await wait_until(is_reached, within=60, every=0.005, what="somebody to connect to")
        yield reached[0]


async def test_killed_between_any_two_steps_it_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    with killed_log(tmp_path) as log:
        for statement in STATEMENTS:
            log.home = tmp_path / str(statement)
            log.home.mkdir()
            with anyio.fail_after(60):
                await log.start(dying_at=statement)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_start_again, log)
                    async with connected(log) as transport:
                        await _live_through_it(transport)
                    tasks.cancel_scope.cancel()
            log.kill()
            await log.ended()


async def _start_again(log: KilledLog) -> None:
    await log.ended()
    await log.start()


async def _live_through_it(transport: Transport) -> None:
    """Publish, ack, retry and reject, and see that everything is where it belongs in the end."""
    subscription = Subscription(("work.#",), group="g", retrying=Retrying(attempts=50))
    async with contextlib.AsyncExitStack() as stack:
        consumer = None
        while consumer is None:
            with contextlib.suppress(EventsUnavailable):
                consumer = await stack.enter_async_context(transport.subscribe(subscription))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_publish_twelve, transport)
            await _settle_twelve(consumer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_settle_again, consumer)
            await wait_until(partial(_all_is_settled, transport), what="everything to be settled")
            tasks.cancel_scope.cancel()
        stored, letters = await _look(transport)
    assert Counter(one.event.data for one in stored) == Counter(str(number).encode() for number in range(12))
    assert len({one.offset for one in stored}) == 12
    assert sorted(int(letter.event.data) for letter in letters) == [2, 6, 10]


async def _publish_twelve(transport: Transport) -> None:
    for start in range(0, 12, 3):
        await publish_surely(transport, [event(number, keys=5) for number in range(start, start + 3)])


async def _settle_twelve(consumer: Consumer) -> None:
    """Of four events ack two, retry one once, and reject one."""
    settled: set[bytes] = set()
    async for delivery in consumer:
        number = int(delivery.event.data)
        if number % 4 == 1 and delivery.attempt == 1:
            await delivery.retry(timedelta(milliseconds=5), "again")
            continue
        await _settle(delivery)
        settled.add(delivery.event.data)
        if len(settled) == 12:
            return


async def _settle_again(consumer: Consumer) -> None:
    """What was settled just before the kill comes once more, and is settled again."""
    async for delivery in consumer:
        await _settle(delivery)


async def _settle(delivery: Delivery) -> None:
    if int(delivery.event.data) % 4 == 2:
        await delivery.reject("never")
    else:
        await delivery.ack()


async def _all_is_settled(transport: Transport) -> bool:
    with contextlib.suppress(EventsUnavailable):
        (group,) = await transport.administration.groups()
        return (group.lag, group.unsettled, group.delayed, group.dead) == (0, 0, 0, 3)
    return False


async def _look(transport: Transport) -> tuple[list[Stored], list[DeadLetter]]:
    """What is there, however late it was killed."""
    found: list[tuple[list[Stored], list[DeadLetter]]] = []

    async def looked() -> bool:
        with contextlib.suppress(EventsUnavailable):
            stored = await read_all(transport.read(["#"], BEGINNING))
            found.append((stored, await transport.administration.dead_letters("g")))
        return bool(found)

    await wait_until(looked, what="a look at what is there")
    return found[0]


class Onslaught:
    """Many events on their way, while the log is killed and consumers go away with events in hand.

    Attributes:
        handled: Numbers of events in the order in which they were handled first, by the number of their key.
    """

    KEYS = 50
    LANES = 4

    def __init__(self, log: KilledLog) -> None:
        self.handled: defaultdict[int, list[int]] = defaultdict(list)
        self.seen: set[int] = set()
        self.finished = anyio.Event()
        self._log = log
        self._random = random.Random(20)

    async def kill_now_and_then(self) -> None:
        while not self.finished.is_set():
            async with connected(self._log):  # one that nobody has reached has nothing to lose
                wanted = min(EVENTS, len(self.seen) + self._random.randint(1, EVENTS // 8))
                await wait_until(
                    lambda wanted=wanted: len(self.seen) >= wanted, within=600, what="some more to be handled"
                )
            self._log.kill()
            await self._log.ended()
            await self._log.start()

    async def publish(self, lane: int) -> None:
        """Publish the events of a quarter of the keys: who waits for each batch decides on the order within a key."""
        async with connected(self._log) as transport:
            batch: list[Event] = []
            for number in range(EVENTS):
                if number % self.KEYS % self.LANES == lane:
                    batch.append(event(number, keys=self.KEYS))
                if len(batch) == 50:
                    await publish_surely(transport, batch)
                    batch = []
            await publish_surely(transport, batch)

    async def consume(self) -> None:
        while not self.finished.is_set():
            with contextlib.suppress(EventsUnavailable):
                async with connected(self._log) as transport, transport.subscribe(SUBSCRIPTION) as consumer:
                    await self._consume_for_a_while(consumer)

    async def _consume_for_a_while(self, consumer: Consumer) -> None:
        die_after = self._random.randint(100, 3000)
        async for delivery in consumer:
            self._handle(int(delivery.event.data))
            die_after -= 1
            if die_after == 0:
                return  # without an ack, and with others in hand
            if self._random.random() < 0.01:
                await delivery.retry(timedelta(milliseconds=1), "now and then")
            else:
                await delivery.ack()

    def _handle(self, number: int) -> None:
        if number not in self.seen:
            self.seen.add(number)
            self.handled[number % self.KEYS].append(number)
        if len(self.seen) == EVENTS:
            self.finished.set()


async def test_of_many_events_none_is_lost_and_keys_keep_order_while_both_sides_are_killed(tmp_path: Path) -> None:
    """Every confirmed event is handled at least once, also in the order of its key; the inbox makes that once."""
    with killed_log(tmp_path) as log, anyio.fail_after(1200 if LONG else 60):
        await log.start()
        async with connected(log) as transport, transport.subscribe(SUBSCRIPTION):
            pass
        onslaught = Onslaught(log)
        async with anyio.create_task_group() as tasks:
            for lane in range(onslaught.LANES):
                tasks.start_soon(onslaught.publish, lane)
            for _ in range(2):
                tasks.start_soon(onslaught.consume)
            tasks.start_soon(onslaught.kill_now_and_then)
            await onslaught.finished.wait()
            tasks.cancel_scope.cancel()
    assert len(onslaught.seen) == EVENTS
    for numbers in onslaught.handled.values():
        assert numbers == sorted(numbers)

"""A cluster of three nodes, of which the one that leads a group's queues is killed under load, and comes back."""

import os
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import pytest
from anyio.to_thread import run_sync
from toska_common.clock import now_utc
from toska_common.events.amqp.transport import AmqpTransport, open_amqp
from toska_common.events.errors import EventsUnavailable
from toska_common.events.event import Event
from toska_common.events.transport import Consumer, Message, Subscription
from toska_tests.rabbit_clusters import RabbitCluster, rabbit_cluster
from toska_tests.waiting import PATIENT_S, wait_until

pytestmark = pytest.mark.anyio

KEYS = 20
ENOUGH = 1_000
PUBLISHING, CONSUMING = (0, 1, 2), (1, 2, 0)
"""Both clients name all nodes, and each begins with another one."""


@pytest.fixture(scope="module")
async def cluster() -> AsyncGenerator[RabbitCluster]:
    async with rabbit_cluster() as made:
        yield made


class Load:
    """Numbers that are published one after the other and handled, and for how long neither went on."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.seen: dict[str, list[int]] = {}
        self.distinct: set[int] = set()
        self.confirming, self.handling = Pulse(), Pulse()
        self.stop = anyio.Event()

    async def publish(self, transport: AmqpTransport) -> None:
        while not self.stop.is_set():
            batch = [_event(number) for number in range(self.confirmed, self.confirmed + 10)]
            with suppress(EventsUnavailable):
                await transport.publish([Message(event) for event in batch])
                self.confirmed += 10
                self.confirming.beat()

    async def handle(self, consumer: Consumer) -> None:
        async for delivery in consumer:
            number = int(delivery.event.data)
            self.seen.setdefault(delivery.event.key or "", []).append(number)
            self.distinct.add(number)
            self.handling.beat()
            await delivery.ack()

    async def go_on(self, count: int) -> None:
        """Wait until so many more were confirmed, and so many more handled."""
        confirmed, handled = self.confirmed + count, len(self.distinct) + count
        await wait_until(
            lambda: self.confirmed >= confirmed and len(self.distinct) >= handled,
            within=4 * PATIENT_S,
            what="the load to go on",
        )


class Pulse:
    """How long the longest pause was between two beats."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.longest_s = 0.0

    def beat(self) -> None:
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now

    def begin(self) -> None:
        """Forget the pauses so far."""
        self.longest_s = 0.0


def _event(number: int) -> Event:
    data = b"%d" % number
    return Event(topic="work.done", source="/tests", id=str(number), time=now_utc(), data=data, key=f"k{number % KEYS}")


@pytest.mark.parametrize("ordered", [False, True], ids=["shared", "ordered"])
async def test_nothing_confirmed_is_lost_when_the_node_that_leads_is_killed(
    cluster: RabbitCluster, ordered: bool
) -> None:
    namespace = f"t{os.urandom(4).hex()}"
    group = Subscription(("work.#",), group="workers", ordered=ordered, partitions=2)
    queue = f"{namespace}.group.workers" + (":lane-0" if ordered else "")
    load = Load()
    async with (
        open_amqp(f"{cluster.url(*PUBLISHING)}?namespace={namespace}") as publisher,
        open_amqp(f"{cluster.url(*CONSUMING)}?namespace={namespace}") as subscriber,
        subscriber.subscribe(group) as consumer,
        anyio.create_task_group() as tasks,
    ):
        for node in cluster.nodes:
            node.settle()
        tasks.start_soon(load.publish, publisher)
        tasks.start_soon(load.handle, consumer)
        for _ in range(2):
            await load.go_on(ENOUGH)
            leader = await cluster.leader_of(queue, asking=0)
            for pulse in (load.confirming, load.handling):
                pulse.begin()
            await run_sync(cluster.nodes[leader].kill_node)
            await load.go_on(ENOUGH)
            others = [number for number in range(len(cluster.nodes)) if number != leader]
            assert await cluster.leader_of(queue, asking=others[0]) != leader
            print(
                f"node {leader} led; nothing was confirmed for {load.confirming.longest_s:.2f} s"
                f" and nothing handled for {load.handling.longest_s:.2f} s"
            )
            await cluster.nodes[leader].start()
            await cluster.wait_until_whole()
        load.stop.set()
        await wait_until(lambda: len(load.distinct) >= load.confirmed, within=4 * PATIENT_S, what="all to be handled")
        tasks.cancel_scope.cancel()
    assert load.distinct >= set(range(load.confirmed))
    if ordered:
        for numbers in load.seen.values():
            assert list(dict.fromkeys(numbers)) == sorted(set(numbers))

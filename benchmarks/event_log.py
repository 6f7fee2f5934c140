"""The embedded event log by fsync policy: publishing with confirms, consuming with acks, and the way through.

The log is a process of its own on the measured core, on a disk where the repository is; publishers and consumers share
this process, over the socket as any other. Confirmed means committed under the policy, and consumed means acked.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import psutil
import uvloop
from rich.console import Console
from toska_common.clock import now_utc
from toska_common.events.event import Event, new_id
from toska_common.events.opening import open_transport
from toska_common.events.transport import Message, Subscription, Transport

from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.open_loop import part
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.rigs import EventLog, Policy, event_log

POLICIES: tuple[Policy, ...] = ("full", "normal")
DATA = b'{"order":"o-1","customer":"c-1","total":"19.90","currency":"EUR","lines":[{"sku":"a","count":2}]}'
BATCH = 100
_TOPIC = "orders.placed"


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int
    events: int


@dataclass(slots=True)
class _Costs:
    """What some events took: events a second, and the processor's time of either side for one."""

    per_second: list[float]
    log_us: list[float]
    client_us: list[float]

    @classmethod
    def none(cls) -> "_Costs":
        return cls([], [], [])

    def figures(self) -> dict[str, object]:
        return {name: Spread.of(values).model_dump() for name, values in asdict(self).items()}


@dataclass(slots=True)
class _Found:
    alone: _Costs
    crowd: _Costs
    batches: _Costs
    consumed: _Costs
    latencies_ms: list[float]

    def figures(self) -> dict[str, object]:
        ordered = sorted(self.latencies_ms)
        return {
            "one_by_one": self.alone.figures(),
            "one_by_one_by_64": self.crowd.figures(),
            "batches_of_100": self.batches.figures(),
            "consumed": self.consumed.figures(),
            "p50_ms": part(ordered, 0.5),
            "p99_ms": part(ordered, 0.99),
        }


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure each policy."""
    found: dict[str, _Found] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("events", total=len(POLICIES) * options.rounds)
        for policy in POLICIES:
            found[policy] = _Found(_Costs.none(), _Costs.none(), _Costs.none(), _Costs.none(), [])
            for _ in range(options.rounds):
                _measure(options, cores, policy, found[policy])
                progress.advance(bar)
    table = _table(found, options)
    show(console, table)
    return Outcome([table], asdict(options), {policy: one.figures() for policy, one in found.items()})


def _measure(options: Options, cores: Cores, policy: Policy, found: _Found) -> None:
    with event_log(cores.measured, policy) as log:
        os.sched_setaffinity(0, set(cores.load))
        uvloop.run(_all(options, log, found))


async def _all(options: Options, log: EventLog, found: _Found) -> None:
    server = log.process
    async with open_transport("embedded://", home=log.home, token=log.token, service="bench") as transport:
        few = max(options.events // 20, BATCH)
        some = options.events // 4
        await _timed(found.alone, server, few, lambda: _one_by_one(transport, few))
        await _timed(found.crowd, server, some, lambda: _together(_one_by_one, transport, some, 64))
        async with transport.subscribe(Subscription((_TOPIC,), group="bench")):
            pass
        await _timed(found.batches, server, options.events, lambda: _together(_batches, transport, options.events, 4))
        await _timed(found.consumed, server, options.events, lambda: _consume(transport, options.events))
        found.latencies_ms += await _way_through(transport)


async def _timed(costs: _Costs, server: psutil.Process, events: int, work: Callable[[], Awaitable[None]]) -> None:
    busy, own, began = sum(server.cpu_times()[:2]), time.process_time(), time.perf_counter()
    await work()
    took, mine = time.perf_counter() - began, time.process_time() - own
    costs.per_second.append(events / took)
    costs.log_us.append((sum(server.cpu_times()[:2]) - busy) / events * 1e6)
    costs.client_us.append(mine / events * 1e6)


def _event() -> Message:
    now = now_utc()
    return Message(Event(topic=_TOPIC, source="/services/bench", id=new_id(now), time=now, data=DATA, key="c-1"))


async def _one_by_one(transport: Transport, count: int) -> None:
    for _ in range(count):
        await transport.publish([_event()])


async def _batches(transport: Transport, count: int) -> None:
    for _ in range(count // BATCH):
        await transport.publish([_event() for _ in range(BATCH)])


async def _together(
    work: Callable[[Transport, int], Awaitable[None]], transport: Transport, count: int, workers: int
) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_awaited(work(transport, count // workers)))


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _consume(transport: Transport, count: int) -> None:
    async with transport.subscribe(Subscription((_TOPIC,), group="bench", prefetch=500)) as consumer:
        async for delivery in consumer:
            assert delivery.event.data == DATA
            await delivery.ack()
            count -= 1
            if count == 0:
                return


async def _way_through(transport: Transport, count: int = 500, pause_s: float = 0.004) -> list[float]:
    """Milliseconds from publishing to being handled, at a load that leaves everybody time."""
    found: list[float] = []
    async with transport.subscribe(Subscription((_TOPIC,), group="latency")) as consumer, asyncio.TaskGroup() as group:
        sent: dict[str, float] = {}

        async def publish() -> None:
            for _ in range(count):
                message = _event()
                sent[message.event.id] = time.perf_counter()
                await transport.publish([message])
                await asyncio.sleep(pause_s)

        group.create_task(publish())
        async for delivery in consumer:
            found.append((time.perf_counter() - sent[delivery.event.id]) * 1e3)
            await delivery.ack()
            if len(found) == count:
                return found
    return found


def _table(found: dict[str, _Found], options: Options) -> Figures:
    rows: list[tuple[str, ...]] = []
    for policy, one in found.items():
        for name, costs in (
            ("published one by one", one.alone),
            ("published one by one, by 64 at once", one.crowd),
            (f"published in batches of {BATCH}, by 4 at once", one.batches),
            ("consumed and acked", one.consumed),
        ):
            medians = [Spread.of(values).median for values in (costs.per_second, costs.log_us, costs.client_us)]
            rows.append((f"{policy}: {name}", f"{medians[0]:,.0f}", *(f"{value:.1f}" for value in medians[1:])))
        ordered = sorted(one.latencies_ms)
        rows.append(
            (f"{policy}: p50 / p99 through, ms", f"{part(ordered, 0.5):.1f} / {part(ordered, 0.99):.1f}", "", "")
        )
    columns = ("", "events/s", "log, µs of CPU each", "client, µs of CPU each")
    return Figures(f"The embedded log by fsync policy, {options.events:,} events of {len(DATA)} bytes", columns, rows)

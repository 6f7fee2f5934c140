"""The outbox: events a second through the relay, and how soon after its commit an event is in its handler.

Everything of a contestant is in this process, with its database beneath it: writers, relay and handler share a core;
PostgreSQL and the carrier are on the other one. For the rate, all events are committed before the relay begins. For the
time, transactions of one event each are begun at a constant rate, whatever became of those before.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvloop
from rich.console import Console
from rich.progress import Progress, TaskID
from sqlalchemy.ext.asyncio import AsyncEngine
from toska_common.events.opening import open_transport

from benchmarks import BenchError
from benchmarks.arrivals import LATE_MS, Arrivals, at_rate
from benchmarks.figures import Spread, ratio
from benchmarks.machine import Cores
from benchmarks.open_loop import part
from benchmarks.outbox.outboxes import Contestant, Handled, ours, usual_over_log, usual_over_rabbitmq
from benchmarks.outbox.stores import STORES, opened
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.rigs import EventLog, event_log, postgresql, rabbitmq

LOG, RABBITMQ = "embedded log", "RabbitMQ"
OURS, USUAL = "toska", "usual outbox"
_WRITTEN_AT_ONCE = 100
_USUAL_SHARE = 5
"""The usual outbox waits for each confirm: it gets a fifth of the events, or most of the time were its."""
_LOOKED_EVERY_S = 0.02
_PATIENCE_S = 120.0
_WARM_UP_S = 1.0
_CALMED_DOWN_S = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run: events that wait for the relay; transactions a second, and for how long."""

    rounds: int
    events: int
    rate: int
    seconds: float


@dataclass(slots=True)
class _Costs:
    per_second: list[float] = field(default_factory=list[float])
    client_us: list[float] = field(default_factory=list[float])
    p50_ms: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])
    late_ms: list[float] = field(default_factory=list[float])

    def figures(self) -> dict[str, object]:
        values = {"per_second": self.per_second, "client_us": self.client_us}
        values |= {"p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "late_p99_ms": self.late_ms}
        return {name: Spread.of(value).model_dump() for name, value in values.items()}


Opened = Callable[[AsyncEngine, Handled], AbstractAsyncContextManager[Contestant]]
Found = dict[tuple[str, str, str], _Costs]


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure both outboxes on each database and over each carrier."""
    found: Found = {}
    uvloop.run(_all(console, options, cores, found))
    table, disturbed = _table(found, options)
    show(console, table)
    figures: dict[str, object] = {", ".join(key): costs.figures() for key, costs in found.items()}
    settings: dict[str, object] = {"outbox_events": options.events, "outbox_rate": options.rate}
    return Outcome([table], settings, figures, disturbed)


async def _all(console: Console, options: Options, cores: Cores, found: Found) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(rabbitmq([cores.measured]))
        postgres = await stack.enter_async_context(postgresql([cores.measured]))
        log = stack.enter_context(event_log(cores.measured))
        os.sched_setaffinity(0, set(cores.load))
        progress = stack.enter_context(progress_bar(console))
        contestants = _contestants(broker, log)
        bar = progress.add_task("outbox", total=options.rounds * len(STORES) * len(contestants))
        for _ in range(options.rounds):
            await _round(contestants, postgres, options, found, (progress, bar))


async def _round(
    contestants: dict[tuple[str, str], Opened],
    postgres: Any,
    options: Options,
    found: Found,
    shown: tuple[Progress, TaskID],
) -> None:
    progress, bar = shown
    for store in STORES:
        for (carrier, name), contestant in contestants.items():
            arrivals = Arrivals()
            async with opened(store, postgres) as engine, contestant(engine, arrivals.arrived) as outbox:
                costs = found.setdefault((store, carrier, name), _Costs())
                events = options.events // (_USUAL_SHARE if name == USUAL else 1)
                await _rate(costs, outbox, arrivals, events)
                await _latency(costs, outbox, arrivals, options)
            progress.advance(bar)


def _contestants(broker: str, log: EventLog) -> dict[tuple[str, str], Opened]:
    def over_log() -> Any:
        return open_transport("embedded://", home=log.home, token=log.token, service="bench")

    def over_rabbitmq() -> Any:
        # Without the log of all events, which the usual outbox does not have either.
        return open_transport(f"{broker}?log=false", home=None)

    return {
        (LOG, USUAL): lambda engine, handled: usual_over_log(engine, over_log, handled),
        (LOG, OURS): lambda engine, handled: ours(engine, over_log, handled),
        (RABBITMQ, USUAL): lambda engine, handled: usual_over_rabbitmq(engine, broker, handled),
        (RABBITMQ, OURS): lambda engine, handled: ours(engine, over_rabbitmq, handled),
    }


async def _rate(costs: _Costs, outbox: Contestant, arrivals: Arrivals, events: int) -> None:
    now = time.monotonic()
    for first in range(0, events, _WRITTEN_AT_ONCE):
        await outbox.write([now] * min(_WRITTEN_AT_ONCE, events - first))
    with arrivals.expecting(events):
        spent, began = time.process_time(), time.monotonic()
        async with _relaying(outbox):
            await _until_empty(outbox)
            costs.per_second.append(events / (time.monotonic() - began))
            await arrivals.wait()
        costs.client_us.append((time.process_time() - spent) / events * 1e6)


async def _until_empty(outbox: Contestant) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not await outbox.is_empty():
        if time.monotonic() > deadline:
            raise BenchError(f"the events were not relayed within {_PATIENCE_S:.0f} s")
        await anyio.sleep(_LOOKED_EVERY_S)


async def _latency(costs: _Costs, outbox: Contestant, arrivals: Arrivals, options: Options) -> None:
    async def commit(due: float) -> None:
        await outbox.write([due])

    async with _relaying(outbox):
        await at_rate(options.rate, _WARM_UP_S, commit, arrivals)
        late_ms, ordered = await at_rate(options.rate, options.seconds, commit, arrivals)
    costs.late_ms.append(late_ms)
    costs.p50_ms.append(part(ordered, 0.5) * 1e3)
    costs.p99_ms.append(part(ordered, 0.99) * 1e3)


@asynccontextmanager
async def _relaying(outbox: Contestant) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        yield
        # By then it waits for more: SQLite's driver does not like to be interrupted in a statement.
        await anyio.sleep(_CALMED_DOWN_S)
        group.cancel_scope.cancel()


def _table(found: Found, options: Options) -> tuple[Figures, bool]:
    rows: list[tuple[str, ...]] = []
    for (store, carrier, name), costs in found.items():
        usual = found[(store, carrier, USUAL)]
        rows.append(
            (
                f"{name}: {store}, {carrier}",
                f"{Spread.of(costs.per_second).median:,.0f}",
                f"{Spread.of(costs.client_us).median:.0f}",
                f"{ratio(costs.per_second, usual.per_second).median:.2f}",
                f"{Spread.of(costs.p50_ms).median:.1f}",
                f"{Spread.of(costs.p99_ms).median:.1f}",
                f"{ratio(costs.p50_ms, usual.p50_ms).median:.2f}",
            )
        )
    latest = max(Spread.of(costs.late_ms).median for costs in found.values())
    notes = [
        "Processor time is relay's and handler's for an event, in µs; SQLite is in it, PostgreSQL and carrier are not.",
        f"Times run from when a transaction was due, {options.rate:,} a second, to the handler.",
    ]
    if latest > LATE_MS:
        notes.append(f"The load was late by {latest:.1f} ms: measure again on a quiet machine.")
    columns = ("", "events/s", "µs CPU", "of the usual rate", "p50 ms", "p99 ms", "of its p50")
    return Figures(f"The outbox, {options.events:,} events", columns, rows, notes=notes), latest > LATE_MS

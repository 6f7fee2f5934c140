"""From publishing to the handler over RabbitMQ at a constant rate, beside bare aio-pika on the same broker.

An open loop: events are published when they are due, whatever became of those before, and the time of each runs from
the moment at which it was due, so a stall is charged to all that was due meanwhile. Publisher and handler share a
process, ours by `EventBus`; handlers get JSON that was read, and messages are confirmed and acked in both.
"""

import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from pydantic_core import from_json, to_json
from rich.console import Console
from toska_common.clock import now_utc
from toska_common.events import EventBus, Incoming
from toska_common.events.event import Event, new_id
from toska_common.events.opening import open_transport

from benchmarks.arrivals import LATE_MS, Arrivals, Publish, at_rate
from benchmarks.bare_events import bare_broker, bare_message
from benchmarks.figures import Spread, ratio
from benchmarks.machine import Cores
from benchmarks.open_loop import part
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.rigs import rabbitmq

RAW, OURS, LOGGED = "aio-pika", "toska", "toska, with the log"
PREFETCH = 64
_TOPIC = "orders.placed"
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run: events a second, and for how long."""

    rounds: int
    rate: int
    seconds: float


@dataclass(slots=True)
class Latencies:
    """Milliseconds, by round."""

    p50: list[float] = field(default_factory=list[float])
    p99: list[float] = field(default_factory=list[float])
    late_p99: list[float] = field(default_factory=list[float])
    client_us: list[float] = field(default_factory=list[float])


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure all three in turn, some rounds long."""
    found = {name: Latencies() for name in (RAW, OURS, LOGGED)}
    uvloop.run(_rounds(console, options, cores, found))
    table, disturbed = _table(found, options)
    show(console, table)
    figures: dict[str, object] = {name: _figures(latencies) for name, latencies in found.items()}
    return Outcome([table], {"rate": options.rate, "latency_seconds": options.seconds}, figures, disturbed)


def _figures(latencies: Latencies) -> dict[str, object]:
    return {
        "p50_ms": latencies.p50,
        "p99_ms": latencies.p99,
        "late_p99_ms": latencies.late_p99,
        "client_us": latencies.client_us,
    }


async def _rounds(console: Console, options: Options, cores: Cores, found: dict[str, Latencies]) -> None:
    async with rabbitmq([cores.measured]) as url:
        os.sched_setaffinity(0, set(cores.load))
        with progress_bar(console) as progress:
            bar = progress.add_task("from publish to handler", total=options.rounds * len(found))
            for _ in range(options.rounds):
                for name, connected in _contestants(url).items():
                    arrivals = Arrivals()
                    async with connected(arrivals) as publish:
                        await measure(found[name], options, publish, arrivals)
                    progress.advance(bar)


def _contestants(url: str) -> dict[str, Callable[[Arrivals], AbstractAsyncContextManager[Publish]]]:
    return {
        RAW: lambda arrivals: _bare(url, arrivals),
        OURS: lambda arrivals: _ours(f"{url}?log=false", arrivals),
        LOGGED: lambda arrivals: _ours(f"{url}?log=true", arrivals),
    }


async def measure(latencies: Latencies, options: Options, publish: Publish, arrivals: Arrivals) -> None:
    """One run at the rate, after a second that does not count."""
    await at_rate(options.rate, _WARM_UP_S, publish, arrivals)
    spent = time.process_time()
    late_ms, ordered = await at_rate(options.rate, options.seconds, publish, arrivals)
    latencies.p50.append(part(ordered, 0.5) * 1e3)
    latencies.p99.append(part(ordered, 0.99) * 1e3)
    latencies.late_p99.append(late_ms)
    latencies.client_us.append((time.process_time() - spent) / len(ordered) * 1e6)


@asynccontextmanager
async def _bare(url: str, arrivals: Arrivals) -> AsyncGenerator[Publish]:
    async with bare_broker(url, _TOPIC, prefetch=PREFETCH) as broker:

        async def handle(body: bytes) -> None:
            arrivals.arrived(from_json(body)["due"])

        async def publish(due: float) -> None:
            now = now_utc()
            data = to_json({"due": due, "order": "o-1", "total": "19.90"})
            event = Event(topic=_TOPIC, source="/services/bench", id=new_id(now), time=now, data=data)
            await broker.publish(bare_message(event), _TOPIC)

        await broker.handle(handle)
        yield publish


@asynccontextmanager
async def _ours(url: str, arrivals: Arrivals) -> AsyncGenerator[Publish]:
    location = f"{url}&namespace=b{secrets.token_hex(4)}"
    bus = EventBus("bench", lambda: open_transport(location, home=None))

    async def handle(incoming: Incoming[Any]) -> None:
        arrivals.arrived(incoming.data["due"])

    bus.subscribe(_TOPIC, group="bench", prefetch=PREFETCH)(handle)

    async def publish(due: float) -> None:
        await bus.publish(bus.event(_TOPIC, {"due": due, "order": "o-1", "total": "19.90"}))

    async with bus.open():
        await bus.subscribed()
        yield publish
    async with open_transport(location, home=Path()) as transport:
        await transport.administration.delete_group("bench")


def _table(found: dict[str, Latencies], options: Options) -> tuple[Figures, bool]:
    rows: list[tuple[str, ...]] = []
    for name, latencies in found.items():
        rows.append(
            (
                name,
                f"{Spread.of(latencies.p50).median:.2f}",
                f"{Spread.of(latencies.p99).median:.2f}",
                f"{ratio(latencies.p50, found[RAW].p50).median:.2f}",
                f"{ratio(latencies.p99, found[RAW].p99).median:.2f}",
                f"{Spread.of(latencies.client_us).median:.0f}",
                f"{Spread.of(latencies.late_p99).median:.2f}",
            )
        )
    latest = max(Spread.of(latencies.late_p99).median for latencies in found.values())
    notes = [f"The load was late by {latest:.1f} ms: measure again on a quiet machine."] if latest > LATE_MS else []
    columns = ("", "p50 ms", "p99 ms", "of aio-pika's p50", "of its p99", "µs of CPU each", "load late, p99 ms")
    title = f"RabbitMQ, from publish to the handler, {options.rate:,} events/s"
    return Figures(title, columns, rows, notes=notes), bool(notes)

"""Events over RabbitMQ beside bare aio-pika on the same broker: publishing with confirms, consuming with acks.

aio-pika sends the same payload with the attributes that CloudEvents requires as headers, to a topic exchange bound to a
quorum queue. Ours is measured without the log of all events and with it, which the broker writes besides.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from toska_common.clock import now_utc
from toska_common.events.event import Event, new_id
from toska_common.events.opening import open_transport
from toska_common.events.transport import Message, Subscription, Transport

from benchmarks.bare_events import bare_broker, bare_message
from benchmarks.figures import Spread, ratio
from benchmarks.machine import Cores
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.rigs import rabbitmq

DATA = b'{"order":"o-1","customer":"c-1","total":"19.90","currency":"EUR","lines":[{"sku":"a","count":2}]}'
BATCH, AT_ONCE, PREFETCH = 500, 64, 500
_TOPIC = "orders.placed"
PARTS = ("published in batches of 500", "published one by one, by 64 at once", "consumed and acked")
RAW, OURS, LOGGED = "aio-pika", "toska", "toska, with the log"


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int
    events: int


@dataclass(slots=True)
class _Costs:
    per_second: list[float] = field(default_factory=list[float])
    client_us: list[float] = field(default_factory=list[float])


Found = dict[str, dict[str, _Costs]]


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure all three in turn, some rounds long."""
    found: Found = {name: {part: _Costs() for part in PARTS} for name in (RAW, OURS, LOGGED)}
    uvloop.run(_rounds(console, options, cores, found))
    table = _table(found, options)
    show(console, table)
    figures: dict[str, object] = {
        name: {part: asdict(costs) for part, costs in parts.items()} for name, parts in found.items()
    }
    return Outcome([table], asdict(options), figures)


async def _rounds(console: Console, options: Options, cores: Cores, found: Found) -> None:
    async with rabbitmq([cores.measured]) as url:
        os.sched_setaffinity(0, set(cores.load))
        with progress_bar(console) as progress:
            bar = progress.add_task("RabbitMQ", total=options.rounds)
            for _ in range(options.rounds):
                await _bare(url, options.events, found[RAW])
                await _ours(f"{url}?log=false", options.events, found[OURS])
                await _ours(f"{url}?log=true", options.events, found[LOGGED])
                progress.advance(bar)


async def _timed(costs: _Costs, events: int, work: Callable[[], Awaitable[object]]) -> None:
    own, began = time.process_time(), time.perf_counter()
    await work()
    costs.per_second.append(events / (time.perf_counter() - began))
    costs.client_us.append((time.process_time() - own) / events * 1e6)


def _event() -> Event:
    now = now_utc()
    return Event(topic=_TOPIC, source="/services/bench", id=new_id(now), time=now, data=DATA)


async def _ours(url: str, events: int, costs: dict[str, _Costs]) -> None:
    async with open_transport(f"{url}&namespace=b{secrets.token_hex(4)}", home=Path()) as transport:
        wanted = Subscription((_TOPIC,), group="bench", prefetch=PREFETCH)
        async with transport.subscribe(wanted):
            pass
        await transport.publish([Message(_event())])

        async def publish(count: int) -> None:
            await transport.publish([Message(_event()) for _ in range(count)])

        await _all_parts(events, costs, publish, lambda: _consume(transport, wanted, _all(events) + 1))
        await transport.administration.delete_group("bench")


async def _consume(transport: Transport, wanted: Subscription, count: int) -> None:
    async with transport.subscribe(wanted) as consumer:
        async for delivery in consumer:
            await delivery.ack()
            count -= 1
            if not count:
                return


async def _bare(url: str, events: int, costs: dict[str, _Costs]) -> None:
    async with bare_broker(url, _TOPIC, prefetch=PREFETCH) as broker:

        async def publish(count: int) -> None:
            await asyncio.gather(*(broker.publish(bare_message(_event()), _TOPIC) for _ in range(count)))

        async def consume() -> None:
            left = _all(events)
            async with broker.queue.iterator() as messages:
                async for one in messages:
                    await one.ack()
                    left -= 1
                    if not left:
                        return

        await _all_parts(events, costs, publish, consume)


def _all(events: int) -> int:
    return events // BATCH * BATCH + _singles(events)


def _singles(events: int) -> int:
    return max(1, events // 4 // AT_ONCE) * AT_ONCE


async def _all_parts(
    events: int,
    costs: dict[str, _Costs],
    publish: Callable[[int], Awaitable[None]],
    consume: Callable[[], Awaitable[None]],
) -> None:
    async def batches() -> None:
        for _ in range(events // BATCH):
            await publish(BATCH)

    async def one_by_one() -> None:
        async def some() -> None:
            for _ in range(_singles(events) // AT_ONCE):
                await publish(1)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    in_batches, singly, consumed = (costs[part] for part in PARTS)
    await _timed(in_batches, events // BATCH * BATCH, batches)
    await _timed(singly, _singles(events), one_by_one)
    await _timed(consumed, _all(events), consume)


def _table(found: Found, options: Options) -> Figures:
    rows: list[tuple[str, ...]] = []
    for part in PARTS:
        for name, parts in found.items():
            costs = parts[part]
            share = ratio(costs.per_second, found[RAW][part].per_second).median
            rate, cost = Spread.of(costs.per_second).median, Spread.of(costs.client_us).median
            rows.append((f"{name}: {part}", f"{rate:,.0f}", f"{cost:.1f}", f"{share:.2f}"))
    columns = ("", "events/s", "client, µs of CPU each", "of aio-pika's rate")
    return Figures(f"RabbitMQ, {options.events:,} events of {len(DATA)} bytes", columns, rows)

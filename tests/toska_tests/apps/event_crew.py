"""A parent that has loaded all that events need, and forks a producer or a consumer for each line on standard input.

    {"events": "amqp://…", "folder": "/srv", "publish": {"count": 1000, "keys": 50, "lane": 0, "lanes": 2, "ahead": 9}}
    {"events": "amqp://…", "database": "sqlite+aiosqlite:///srv/effects", "die_after": 120}

For `embedded://`, `home` and `token` say whose log it is.

A producer publishes the numbers of its lane in their order, and appends to `folder`/lane-N each batch that was
confirmed: its successor goes on behind the last. It keeps at most `ahead` events before what `folder`/handled says, so
that both sides are killed at their work. A consumer writes each event's effect and its id in one transaction, and kills
itself once `die_after` were committed, before the last of them is acked. The answer to a line is the child's pid.
Children work until they are killed, are done, or their parent ends.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import create_async_engine
from toska_common.clock import now_utc
from toska_common.events import EventBus, EventsUnavailable, Incoming, Message, Retrying
from toska_common.events.event import Event
from toska_common.events.opening import open_transport
from toska_common.events.outbox import Inbox
from toska_common.events.transport import Transport
from toska_tests.event_crews import EFFECTS, GROUP, REPEATS, TOPIC

for loaded in ("toska_common.events.amqp.transport", "toska_common.events.embedded.transport", "aiosqlite", "asyncpg"):
    import_module(loaded)
import_module("toska_common.logging").configure_logging(level="error", format="text", service="crew")

_BATCH = 20
_ALWAYS = Retrying(attempts=10_000, first=timedelta(milliseconds=5), factor=1)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            anyio.run(work, order, backend_options={"use_uvloop": True})
            os._exit(0)
        # Its end is noticed, so that it leaves no zombie.
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
        print(pid, flush=True)


async def work(order: dict[str, Any]) -> None:
    def connect() -> AbstractAsyncContextManager[Transport]:
        return open_transport(
            order["events"], home=Path(order.get("home", "")), token=order.get("token", ""), service="crew"
        )

    bus = EventBus("crew", connect, registry=CollectorRegistry())
    if "publish" in order:
        async with bus.open(), anyio.create_task_group() as group:
            group.start_soon(end_with_parent)
            await produce(bus, Path(order["folder"]), **order["publish"])
            group.cancel_scope.cancel()
        return
    consume(bus, order["database"], order["die_after"])
    async with bus.open():
        await end_with_parent()


async def end_with_parent() -> None:
    while os.getppid() == PARENT:  # noqa: ASYNC110 - another process's end is no event
        await anyio.sleep(0.1)
    os._exit(0)


async def produce(bus: EventBus, folder: Path, *, count: int, keys: int, lane: int, lanes: int, ahead: int) -> None:
    batches = batches_of(count, keys, lane, lanes)
    told = folder / f"lane-{lane}"
    with told.open("a+", encoding="utf-8") as confirmed:
        confirmed.seek(0)
        for _ in confirmed:
            next(batches)
        for batch in batches:
            while batch[0] > int((folder / "handled").read_text() or 0) + ahead:  # noqa: ASYNC110 - another process's
                await anyio.sleep(0.02)
            messages = [Message(event_of(number, keys)) for number in batch]
            while True:
                # The same events again, as an outbox publishes what was not confirmed.
                with suppress(EventsUnavailable):
                    await bus.publish_batch(messages, within=timedelta(seconds=30))
                    break
            confirmed.write(f"{len(batch)}\n")
            confirmed.flush()


def batches_of(count: int, keys: int, lane: int, lanes: int) -> Iterator[list[int]]:
    """All events of a key are one producer's, who waits for each batch: that is their order."""
    batch: list[int] = []
    for number in range(count):
        if number % keys % lanes == lane:
            batch.append(number)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def event_of(number: int, keys: int) -> Event:
    name = str(number)
    return Event(topic=TOPIC, source="/tests", id=name, time=now_utc(), data=name.encode(), key=f"k{number % keys}")


def consume(bus: EventBus, database: str, die_after: int) -> None:
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if database.startswith("sqlite") else {}
    engine = create_async_engine(database, pool_size=8, max_overflow=0, pool_timeout=60, **options)
    inbox = Inbox("workers")
    committed = 0

    @bus.subscribe(
        TOPIC, group=GROUP, ordered=True, concurrency=8, prefetch=100, timeout=timedelta(seconds=60), retrying=_ALWAYS
    )
    async def handle(incoming: Incoming[int]) -> None:  # pyright: ignore[reportUnusedFunction] - the bus calls it
        nonlocal committed
        async with engine.begin() as session:
            is_first = await inbox.claim(session, incoming.event)
            row = {"number": incoming.data, "key": incoming.event.key}
            await session.execute(sa.insert(EFFECTS if is_first else REPEATS).values(row))
        committed += is_first
        if is_first and committed == die_after:
            os.kill(os.getpid(), signal.SIGKILL)


PARENT = os.getpid()
if __name__ == "__main__":
    main()

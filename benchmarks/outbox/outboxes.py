"""Two outboxes: the mesh's, and one as it is usually written.

The usual one is a table and a loop: some rows are read in their order and locked (`FOR UPDATE SKIP LOCKED`, where the
database has it), each is published and its confirm awaited, all are deleted, and the transaction is committed; when
there is nothing it looks again after a tenth of a second. It keeps one order while one relay runs, as ours does.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle
from typing import Any, Protocol

import anyio
import sqlalchemy as sa
from pydantic_core import from_json, to_json
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from toska_common.clock import now_utc
from toska_common.events import EventBus, Incoming
from toska_common.events.event import Event, new_id
from toska_common.events.outbox import OUTBOX, Outbox, Relay
from toska_common.events.transport import Message, Transport

from benchmarks.bare_events import bare_broker, bare_message
from benchmarks.outbox.stores import USUAL

TOPIC = "orders.order.placed"
KEYS = 50
PREFETCH = 64
USUAL_BATCH, USUAL_PAUSE_S = 100, 0.1

Handled = Callable[[float], None]
Connect = Callable[[], AbstractAsyncContextManager[Transport]]


class Contestant(Protocol):
    """An outbox with its relay, and the handler at the other end."""

    async def write(self, moments: Sequence[float]) -> None:
        """One transaction with an event for each of these."""
        ...

    async def run(self) -> None:
        """The relay, for ever."""
        ...

    async def is_empty(self) -> bool:
        """Whether all is published."""
        ...


class _Ours:
    def __init__(self, bus: EventBus, engine: AsyncEngine) -> None:
        self._bus = bus
        self._engine = engine
        self._outbox = Outbox(bus)
        self._relay = Relay(self._outbox, bus, engine.begin)
        self._keys = cycle([f"c-{number}" for number in range(KEYS)])

    async def write(self, moments: Sequence[float]) -> None:
        async with self._engine.connect() as session, self._outbox.transaction(session) as tx:
            for moment in moments:
                tx.publish(self._bus.event(TOPIC, _data(moment), key=next(self._keys)))

    async def run(self) -> None:
        await self._relay.run()

    async def is_empty(self) -> bool:
        return await _is_empty(self._engine, OUTBOX)


class _Usual:
    def __init__(self, engine: AsyncEngine, publish: Callable[[Event], Awaitable[None]]) -> None:
        self._engine = engine
        self._publish = publish

    async def write(self, moments: Sequence[float]) -> None:
        now = now_utc()
        rows = [{"id": new_id(now), "topic": TOPIC, "data": _json(moment), "written_at": now} for moment in moments]
        async with self._engine.begin() as session:
            await session.execute(sa.insert(USUAL), rows)

    async def run(self) -> None:
        while True:
            async with self._engine.begin() as session:
                moved = await self._batch(session)
            if not moved:
                await anyio.sleep(USUAL_PAUSE_S)

    async def _batch(self, session: AsyncConnection) -> int:
        oldest = sa.select(USUAL).order_by(USUAL.c.number).limit(USUAL_BATCH).with_for_update(skip_locked=True)
        rows = (await session.execute(oldest)).all()
        for row in rows:
            event = Event(topic=row.topic, source="/services/bench", id=row.id, time=row.written_at, data=row.data)
            await self._publish(event)
        await session.execute(sa.delete(USUAL).where(USUAL.c.number.in_([row.number for row in rows])))
        return len(rows)

    async def is_empty(self) -> bool:
        return await _is_empty(self._engine, USUAL)


@asynccontextmanager
async def ours(engine: AsyncEngine, connect: Connect, handled: Handled) -> AsyncGenerator[Contestant]:
    """The mesh's, with a bus whose handler tells of each event."""
    async with _bus(connect, handled) as bus:
        yield _Ours(bus, engine)


@asynccontextmanager
async def usual_over_rabbitmq(engine: AsyncEngine, url: str, handled: Handled) -> AsyncGenerator[Contestant]:
    """The usual one over aio-pika, and a handler on a quorum queue."""
    async with bare_broker(url, TOPIC, prefetch=PREFETCH) as broker:

        async def handle(body: bytes) -> None:
            handled(from_json(body)["due"])

        async def publish(event: Event) -> None:
            await broker.publish(bare_message(event), event.topic)

        await broker.handle(handle)
        yield _Usual(engine, publish)


@asynccontextmanager
async def usual_over_log(engine: AsyncEngine, connect: Connect, handled: Handled) -> AsyncGenerator[Contestant]:
    """The usual one over the embedded log, which nothing but ours speaks to: the relays differ, and nothing else."""
    async with _bus(connect, handled), connect() as transport:

        async def publish(event: Event) -> None:
            await transport.publish([Message(event)])

        yield _Usual(engine, publish)


@asynccontextmanager
async def _bus(connect: Connect, handled: Handled) -> AsyncGenerator[EventBus]:
    bus = EventBus("bench", connect)

    async def handle(incoming: Incoming[Any]) -> None:
        handled(incoming.data["due"])

    bus.subscribe(TOPIC, group=f"bench-{secrets.token_hex(4)}", prefetch=PREFETCH)(handle)
    async with bus.open():
        await bus.subscribed()
        yield bus


async def _is_empty(engine: AsyncEngine, table: sa.Table) -> bool:
    async with engine.connect() as session:
        return (await session.execute(sa.select(sa.literal(1)).select_from(table).limit(1))).first() is None


def _data(due: float) -> dict[str, object]:
    return {"due": due, "order": "o-1", "customer": "c-1", "total": "19.90", "currency": "EUR"}


def _json(due: float) -> bytes:
    return to_json(_data(due))

"""The outbox: events are written beside the state that they tell of, and published by the relay once that is committed.

    async with outbox.transaction(session) as tx:
        session.add(order)
        tx.publish(OrderPlaced(id=order.id), key=order.id)

Events of one key are published in the order in which their transactions committed. Ids alone do not give that order on
PostgreSQL, which hands them out before the commit: so writers of one key exclude one another until they are through.
"""

import zlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import anyio
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from toska_common.clock import Clock, SystemClock
from toska_common.events.bus import EventBus
from toska_common.events.cloudevents import to_structured
from toska_common.events.event import Event
from toska_common.events.outbox.sessions import Session, dialect_of
from toska_common.events.outbox.tables import OUTBOX
from toska_common.events.payload import EventPayload
from toska_common.events.transport import Message, Priority

_LOCKS = 0x746F736B
"""Half of the number of an advisory lock: ours, among those that an application may take itself."""


class OutboxTransaction:
    """What is to be published if the transaction commits."""

    def __init__(self, bus: EventBus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self.messages: list[Message] = []

    def publish(
        self,
        payload: EventPayload | Event,
        *,
        key: str | None = None,
        subject: str | None = None,
        attributes: Mapping[str, str] | None = None,
        priority: Priority = Priority.NORMAL,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
    ) -> Event:
        """Publish an event with the transaction; nothing is sent before.

        Raises:
            EventTooLarge: Its data are over the bus's limit.
        """
        if not isinstance(payload, Event):
            payload = self._bus.event(payload, key=key, subject=subject, attributes=attributes)
        expires_at = None if expires_in is None else self._clock.now() + expires_in
        message = Message(payload, priority, deliver_at, expires_at)
        self._bus.check(message)
        self.messages.append(message)
        return payload


class Outbox:
    """Writes events into a service's own database."""

    def __init__(self, bus: EventBus, *, clock: Clock | None = None) -> None:
        self._bus = bus
        self._clock = clock or SystemClock()
        self._written = anyio.Event()
        self._is_certain = False

    @asynccontextmanager
    async def transaction(self, session: Session) -> AsyncGenerator[OutboxTransaction]:
        """A block whose events are written at its end, in `session`'s transaction.

        A transaction that is under way is joined and stays its owner's to commit; else one is begun, and committed with
        the block.
        """
        transaction = OutboxTransaction(self._bus, self._clock)
        if session.in_transaction():
            yield transaction
            await self._write(session, transaction.messages)
            return
        async with session.begin():
            yield transaction
            await self._write(session, transaction.messages)
        self.wake()

    def wake(self) -> None:
        """Tell the relay of this process that something was committed; without, it looks within its interval."""
        self._is_certain = True
        self.stir()

    def stir(self) -> None:
        """Tell it that something may have been committed, by others."""
        self._written.set()

    async def wait(self, within: timedelta) -> bool:
        """Wait until something was, or until the time is over; whether something was for certain."""
        with anyio.move_on_after(within.total_seconds()):
            await self._written.wait()
        was_certain, self._is_certain = self._is_certain, False
        self._written = anyio.Event()
        return was_certain

    async def _write(self, session: Session, messages: list[Message]) -> None:
        if not messages:
            return
        if isinstance(session, AsyncSession):
            await session.flush()
        locks = sorted({_lock_of(message.event.key) for message in messages if message.event.key})
        if locks and dialect_of(session) == "postgresql":
            # In one order, so that two transactions with the same keys wait for each other and never both.
            each = sa.func.unnest(sa.cast(locks, ARRAY(sa.Integer))).column_valued("lock")
            await session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, each)))
        now = self._clock.now()
        await session.execute(sa.insert(OUTBOX), [_row(message, now) for message in messages])


def _row(message: Message, now: datetime) -> dict[str, object]:
    return {
        "key": message.event.key,
        "event": to_structured(message.event),
        "priority": int(message.priority),
        "deliver_at": message.deliver_at,
        "expires_at": message.expires_at,
        "written_at": now,
        "refused": None,
    }


def _lock_of(key: str) -> int:
    # PostgreSQL's lock numbers are signed, of 32 bits. Two keys that meet in one wait for each other, no more.
    number = zlib.crc32(key.encode())
    return number - (1 << 32) if number >= 1 << 31 else number

"""The relay: reads what was committed to the outbox, publishes it, and deletes what was confirmed.

    rows ──read, oldest first──▶ publish ──confirmed──▶ delete, and read the next
      ▲                             │ broker away, or killed before the delete
      └─────────────────────────────┘  the same rows again: doubles, never losses

Rows are read by what is there and never by `seq > last`: on PostgreSQL a smaller one may be committed later. One relay
at a time publishes, by a lease in the database. One that was stalled beyond its lease may still publish what it had
read, so that consumers see doubles, which the inbox drops; it deletes nothing.
"""

import contextlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from toska_common.clock import Clock, SystemClock
from toska_common.errors import InvalidInput, MeshError
from toska_common.events.bus import EventBus
from toska_common.events.cloudevents import from_structured
from toska_common.events.errors import EventRefused, EventTooLarge, SchemaRefused
from toska_common.events.outbox.news import News
from toska_common.events.outbox.outbox import Outbox
from toska_common.events.outbox.sessions import Session, Transactions, clock_of, insert, whole
from toska_common.events.outbox.tables import OUTBOX, RELAYS
from toska_common.events.transport import Message, Priority

log = structlog.get_logger(__name__)

_REFUSALS = (EventRefused, EventTooLarge, InvalidInput)
"""What is wrong with an event, and will be."""
_WAIT_S = (0.1, 5.0)
_LEAVING_S = 1.0
_AWAY = (MeshError, SQLAlchemyError, OSError)
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Row:
    """An event of the outbox."""

    seq: int
    message: Message


class Relay:
    """Publishes the events of one outbox; `run` never returns.

    Args:
        transactions: Begins transactions of the service's database.
        batch: Most events that are published at once.
        interval: How often it looks without being told.
        lease: How long others wait for one that died.
    """

    def __init__(
        self,
        outbox: Outbox,
        bus: EventBus,
        transactions: Transactions,
        *,
        batch: int = 500,
        interval: timedelta = timedelta(seconds=1),
        lease: timedelta = timedelta(seconds=10),
        clock: Clock | None = None,
    ) -> None:
        self._outbox = outbox
        self._bus = bus
        self._transactions = whole(transactions)
        self._batch = batch
        self._interval = interval
        self._lease = lease
        self._clock = clock or SystemClock()
        self._owner = secrets.token_hex(8)
        self._name = bus.service[:64]
        self._led_at = -math.inf
        self._confirmed: list[int] = []
        self._news = News(self._transactions, f"{self._name} {self._owner}", outbox.stir)

    async def run(self) -> None:
        """Publish what there is, for ever; a broker or a database that is away, or has no room, is asked again."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._news.run)
            try:
                await self._go_on()
            finally:
                with anyio.move_on_after(_LEAVING_S, shield=True):
                    await self._leave()

    async def step(self) -> int:
        """Publish one batch, if it is this relay's turn; returns the number of events.

        Raises:
            EventsUnavailable: The broker did not confirm; the events stay.
            LogFull, SchemaRefused: There is no room, or this publisher publishes nothing; they stay as well.
        """
        moved = await self._move()
        await self._forget_now()
        return moved

    async def _go_on(self) -> None:
        wait_s, busy = _WAIT_S[0], False
        while True:
            try:
                # Who has nothing to do writes nothing, and needs no lease for it.
                busy = bool(await self._move()) if busy or await self._is_there_any() else False
            except _AWAY as error:
                log.warning("relay_interrupted", reason=_reason(error))
                await anyio.sleep(wait_s)
                wait_s = min(_WAIT_S[1], wait_s * 2)
                continue
            wait_s = _WAIT_S[0]
            busy = busy or await self._outbox.wait(self._interval)

    async def _leave(self) -> None:
        with contextlib.suppress(*_AWAY):
            await self._forget_now()  # or whoever comes next publishes them again

    async def _move(self) -> int:
        """Publish what a transaction reads, which deletes what was confirmed before: one commit for each batch."""
        told_by_others = self._news.read()
        async with self._transactions() as session:
            if self._confirmed:
                await self._forget(session)
            leads = self._leads_for_long() or await self._lead(session)
            rows, unreadable = await self._read(session) if leads else ([], {})
            if not leads and not told_by_others:
                await self._news.tell(session)
        self._confirmed = []
        if unreadable:  # first, so that nothing passes it that has its key
            for seq, reason in unreadable.items():
                await self._hold_back(seq, reason)
            return len(unreadable)
        if not rows:
            return 0
        try:
            await self._bus.publish_batch([row.message for row in rows], within=self._lease / 2)
        except SchemaRefused:
            raise  # it is about this release of the publisher, and not about these events
        except _REFUSALS:
            return await self._one_by_one(rows)
        self._confirmed = [row.seq for row in rows]
        return len(rows)

    async def _is_there_any(self) -> bool:
        async with self._transactions() as session:
            return (await session.execute(self._waiting(sa.select(OUTBOX.c.seq)).limit(1))).first() is not None

    async def pending(self) -> int:
        """Events that were not published yet."""
        async with self._transactions() as session:
            return (await session.execute(sa.select(sa.func.count()).select_from(OUTBOX))).scalar_one()

    def _leads_for_long(self) -> bool:
        """Whether the lease is good for publishing a batch without being renewed; the database has the last word."""
        return anyio.current_time() < self._led_at + self._lease.total_seconds() / 3

    async def _lead(self, session: Session) -> bool:
        now = clock_of(session)
        turn = insert(
            session, RELAYS, {"name": self._name, "owner": self._owner, "expires_at": now + self._lease.total_seconds()}
        )
        statement = turn.on_conflict_do_update(
            index_elements=[RELAYS.c.name],
            set_={"owner": turn.excluded.owner, "expires_at": turn.excluded.expires_at},
            where=sa.or_(RELAYS.c.owner == self._owner, RELAYS.c.expires_at < now),
        )
        asked_at = anyio.current_time()
        leads = cast("sa.CursorResult[Any]", await session.execute(statement)).rowcount == 1
        self._led_at = asked_at if leads else -math.inf
        return leads

    def _mine(self, session: Session) -> sa.ColumnElement[bool]:
        return sa.exists().where(
            RELAYS.c.name == self._name, RELAYS.c.owner == self._owner, RELAYS.c.expires_at > clock_of(session)
        )

    async def _read(self, session: Session) -> tuple[list[Row], dict[int, str]]:
        """Rows to be published, and why others are no events, by their numbers."""
        mine = self._waiting(sa.select(OUTBOX)).where(self._mine(session))
        statement = mine.order_by(OUTBOX.c.seq).limit(self._batch)
        now = self._clock.now()
        rows: list[Row] = []
        unreadable: dict[int, str] = {}
        for found in (await session.execute(statement)).mappings():
            try:
                rows.append(_row(found, now))
            except InvalidInput as error:
                unreadable[found["seq"]] = error.detail
        return rows, unreadable

    def _waiting(self, statement: "sa.Select[*tuple[Any, ...]]") -> "sa.Select[*tuple[Any, ...]]":
        held_back = sa.select(OUTBOX.c.key).where(OUTBOX.c.refused.is_not(None), OUTBOX.c.key.is_not(None))
        free = sa.or_(OUTBOX.c.key.is_(None), OUTBOX.c.key.not_in(held_back))
        return statement.where(OUTBOX.c.refused.is_(None), free)

    async def _one_by_one(self, rows: Sequence[Row]) -> int:
        refused: set[str] = set()
        moved = 0
        for row in rows:
            key = row.message.event.key
            if key in refused:
                continue
            try:
                await self._bus.publish_batch([row.message], within=self._lease / 2)
            except _REFUSALS as error:
                event = row.message.event
                await self._hold_back(row.seq, error.detail, event_id=event.id, topic=event.topic)
                if key is not None:
                    refused.add(key)
            else:
                self._confirmed = [row.seq]
                await self._forget_now()
            moved += 1
        return moved

    async def _hold_back(self, seq: int, reason: str, **about: str) -> None:
        log.error("event_refused", seq=seq, reason=reason, **about)
        async with self._transactions() as session:
            await session.execute(sa.update(OUTBOX).where(OUTBOX.c.seq == seq).values(refused=reason[:MAX_REASON]))

    async def _forget_now(self) -> None:
        if self._confirmed:
            async with self._transactions() as session:
                await self._forget(session)
            self._confirmed = []

    async def _forget(self, session: Session) -> None:
        statement = sa.delete(OUTBOX).where(OUTBOX.c.seq.in_(self._confirmed), self._mine(session))
        await session.execute(statement)


def _row(found: Any, now: datetime) -> Row:
    message = Message(
        from_structured(found["event"], now=now),
        Priority(found["priority"]),
        found["deliver_at"],
        found["expires_at"],
    )
    return Row(found["seq"], message)


def _reason(error: Exception) -> str:
    # A statement's parameters are payloads.
    return type(error.orig).__name__ if isinstance(error, DBAPIError) and error.orig else str(error)[:MAX_REASON]

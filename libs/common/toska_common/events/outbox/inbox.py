"""The inbox: a handler's writes happen once, though its event comes twice.

The event's identity is stored in the transaction of the handler's own writes: who finds it there has nothing left to
do. Two that handle one event at once exclude one another on its row. What a handler does elsewhere (a mail, a call) is
not undone with the transaction, and needs an idempotency key of its own: the event's id is one.
"""

import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from toska_common.clock import Clock, SystemClock
from toska_common.events.event import Event
from toska_common.events.handlers import Incoming
from toska_common.events.outbox.sessions import Session, Transactions, insert
from toska_common.events.outbox.tables import INBOX, LONGEST
from toska_common.events.payload import EventPayload

T = TypeVar("T")

Effect = Callable[[Incoming[T], AsyncConnection], Awaitable[EventPayload | None]]


class Inbox:
    """Remembers which events a consumer handled.

    Args:
        consumer: Whose memory this is: the group, as a rule.
        kept: How long; a broker that gives an event again after that finds it new.
    """

    def __init__(self, consumer: str, *, kept: timedelta = timedelta(days=14), clock: Clock | None = None) -> None:
        self.consumer = consumer
        self._kept = kept
        self._clock = clock or SystemClock()

    async def claim(self, session: Session, event: Event) -> bool:
        """Whether this transaction is the first to handle the event; if so, its commit is what handles it."""
        values = {
            "consumer": self.consumer,
            "source": _fitting(event.source),
            "id": _fitting(event.id),
            "handled_at": self._clock.now(),
        }
        found = await session.execute(insert(session, INBOX, values).on_conflict_do_nothing())
        return cast("sa.CursorResult[Any]", found).rowcount == 1

    def once(
        self, transactions: Transactions
    ) -> Callable[[Effect[T]], Callable[[Incoming[T]], Coroutine[Any, Any, EventPayload | None]]]:
        """Make a handler of a function that takes the event and a transaction, and whose writes are to happen once.

            @bus.subscribe(OrderPlaced, group="billing")
            @inbox.once(engine.begin)
            async def bill(incoming: Incoming[OrderPlaced], session: AsyncConnection) -> None: ...

        An answer to a request is given by the first call alone.
        """

        def decorate(effect: Effect[T]) -> Callable[[Incoming[T]], Coroutine[Any, Any, EventPayload | None]]:
            @wraps(effect)
            async def handler(incoming: Incoming[T]) -> EventPayload | None:
                async with transactions() as session:
                    if not await self.claim(session, incoming.event):
                        return None
                    return await effect(incoming, session)

            return handler

        return decorate

    async def forget_old(self, session: Session) -> int:
        """Forget events that were handled long ago; returns how many."""
        before = self._clock.now() - self._kept
        statement = sa.delete(INBOX).where(INBOX.c.consumer == self.consumer, INBOX.c.handled_at < before)
        return cast("sa.CursorResult[Any]", await session.execute(statement)).rowcount


def _fitting(text: str) -> str:
    # Others' ids may be longer than the column; two that begin alike must not be taken for one.
    return text if len(text) <= LONGEST else "sha256:" + hashlib.sha256(text.encode()).hexdigest()

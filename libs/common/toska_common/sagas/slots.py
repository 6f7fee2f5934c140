"""Slots: under which name a process runs sagas, and for how long others have to believe that it does.

    vacant ──claim──▶ held (renewed every third of the lease) ──release──▶ vacant
                        └──not renewed for a whole lease──▶ lapsed, and as good as vacant

A process takes the lowest slot that nobody holds, so names are few and the same over restarts; each holder of a slot
gets a number of its own, so a process that was only stalled is never taken for its successor, nor the other way round.
All times are the database's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from toska_common.sagas.errors import LeaseLost
from toska_common.sagas.tables import SLOTS

if TYPE_CHECKING:
    from toska_common.database import Database


@dataclass(frozen=True, slots=True)
class Holder:
    """One process's hold on a slot."""

    service: str
    slot: int
    number: int

    @property
    def executor(self) -> str:
        """How it is called in records: `orders/0.3` is the third holder of the service's first slot."""
        return f"{self.service}/{self.slot}.{self.number}"


class Slots:
    """The slots of one service."""

    def __init__(self, database: "Database", service: str, lease_ms: int) -> None:
        self._database = database
        self._service = service
        self._lease_ms = lease_ms
        self._now: sa.ColumnElement[int] = _now_ms(sqlite=database.location.file is not None)

    async def claim(self, process: str) -> Holder:
        """Take the lowest slot that is vacant or lapsed, or a new one."""

        def work(connection: sa.Connection) -> Holder:
            rows = connection.execute(sa.select(SLOTS, self._now.label("now")).order_by(SLOTS.c.slot)).all()
            free = next((row for row in rows if row.expires_at_ms <= row.now), None)
            values: dict[str, Any] = {"expires_at_ms": self._now + self._lease_ms, "process": process}
            if free is None:
                connection.execute(SLOTS.insert().values(slot=len(rows), holder=1, **values))
                return Holder(self._service, len(rows), 1)
            connection.execute(SLOTS.update().where(SLOTS.c.slot == free.slot).values(holder=free.holder + 1, **values))
            return Holder(self._service, free.slot, free.holder + 1)

        return await self._database.change(work)

    async def renew(self, holder: Holder) -> None:
        """Extend the lease.

        Raises:
            LeaseLost: Somebody else has the slot, or the lease lapsed: then others may be at our work already.
        """
        extended = SLOTS.update().where(self.held(holder)).values(expires_at_ms=self._now + self._lease_ms)

        def work(connection: sa.Connection) -> bool:
            return connection.execute(extended).rowcount == 1

        if not await self._database.change(work):
            raise LeaseLost(holder.executor)

    async def release(self, holder: Holder) -> None:
        """Leave the slot at once, if it is still ours."""

        def work(connection: sa.Connection) -> None:
            connection.execute(SLOTS.update().where(self.held(holder)).values(expires_at_ms=0))

        await self._database.change(work)

    def check(self, connection: sa.Connection, holder: Holder) -> None:
        """Let a transaction of the holder pass.

        Raises:
            LeaseLost: The slot is somebody else's, or lapsed.
        """
        if connection.scalar(sa.select(SLOTS.c.slot).where(self.held(holder))) is None:
            raise LeaseLost(holder.executor)

    async def live_executors(self) -> set[str]:
        """The names of all whose lease has not lapsed."""
        statement = sa.select(SLOTS.c.slot, SLOTS.c.holder).where(SLOTS.c.expires_at_ms > self._now)
        rows = await self._database.look(lambda connection: connection.execute(statement).all())
        return {Holder(self._service, row.slot, row.holder).executor for row in rows}

    def held(self, holder: Holder) -> sa.ColumnElement[bool]:
        """What is true of a slot that is the holder's."""
        return sa.and_(SLOTS.c.slot == holder.slot, SLOTS.c.holder == holder.number, SLOTS.c.expires_at_ms > self._now)


def _now_ms(*, sqlite: bool) -> sa.ColumnElement[int]:
    if sqlite:
        # Days since noon of 24 November 4714 BC; `unixepoch('subsec')` is not known to older releases.
        return sa.literal_column("CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", sa.BigInteger())
    return sa.literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)", sa.BigInteger())

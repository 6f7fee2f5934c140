"""Sagas and their attempts in the database.

What a process writes while it runs a saga, it writes only under its lease and while the saga is its own: whoever was
stalled, and comes back when others have taken over, gets `LeaseLost` instead of beginning anything.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from toska_common.clock import now_utc
from toska_common.contracts.sagas import FINAL, SagaFailure, SagaState
from toska_common.sagas.errors import IllegalSagaState, LeaseLost, SagaIdTaken, UnknownSaga
from toska_common.sagas.slots import Holder, Slots
from toska_common.sagas.tables import ATTEMPTS, SAGAS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from toska_common.database import Database

_FINAL = tuple(FINAL)
_OPEN = tuple(state for state in SagaState if state not in FINAL)
LONGEST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class NewSaga:
    """A saga that is to be started."""

    id: str
    name: str
    version: int
    input: Any
    deadline_at: datetime | None
    traceparent: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that begins."""

    sequence: int
    step: str
    occurrence: int
    compensation: bool
    number: int
    idempotency_key: str


class SagaStore:
    """The sagas of one service."""

    def __init__(self, database: "Database", slots: Slots) -> None:
        self._database = database
        self._slots = slots

    # Of those who start, steer and ask.

    async def add(self, new: NewSaga, holder: Holder) -> bool:
        """Store a saga; `False` if the very same was stored before.

        Raises:
            SagaIdTaken: The id belongs to another one.
        """
        async with self._database.writing() as connection:
            found = await self._find(connection, new.id)
            if found is not None:
                if (found.name, found.version, found.input) != (new.name, new.version, new.input):
                    raise SagaIdTaken(
                        f"saga {new.id} is {found.name} version {found.version}, or was started with another input",
                        saga_id=new.id,
                    )
                return False
            await self._slots.check(connection, holder)
            now = now_utc()
            await connection.execute(
                SAGAS.insert().values(
                    id=new.id,
                    name=new.name,
                    version=new.version,
                    state=SagaState.RUNNING,
                    input=new.input,
                    stuck="",
                    created_at=now,
                    updated_at=now,
                    deadline_at=new.deadline_at,
                    executor=holder.executor,
                    traceparent=new.traceparent,
                    resumes=0,
                )
            )
            return True

    async def get(self, saga_id: str) -> Any:
        """One saga's row.

        Raises:
            UnknownSaga: There is none.
        """
        async with self._database.reading() as connection:
            return await self._get(connection, saga_id)

    async def history(self, saga_id: str) -> tuple[Any, Sequence[Any]]:
        """One saga's row and those of its attempts, oldest first, of one moment.

        Raises:
            UnknownSaga: There is none.
        """
        async with self._database.reading() as connection:
            row = await self._get(connection, saga_id)
            attempts = sa.select(ATTEMPTS).where(ATTEMPTS.c.saga_id == saga_id).order_by(ATTEMPTS.c.sequence)
            return row, (await connection.execute(attempts)).all()

    async def page(
        self, *, state: SagaState | None, name: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Any]:
        """Sagas, newest first, from those on that were started `before` a moment, or then by a smaller id."""
        statement = sa.select(SAGAS).order_by(SAGAS.c.created_at.desc(), SAGAS.c.id.desc()).limit(limit)
        if state is not None:
            statement = statement.where(SAGAS.c.state == state)
        if name is not None:
            statement = statement.where(SAGAS.c.name == name)
        if before is not None:
            at, saga_id = before
            same = sa.and_(SAGAS.c.created_at == at, SAGAS.c.id < saga_id)
            statement = statement.where(sa.or_(SAGAS.c.created_at < at, same))
        async with self._database.reading() as connection:
            return (await connection.execute(statement)).all()

    async def request_cancel(self, saga_id: str, reason: str) -> None:
        """Note that a saga is to be cancelled; whoever runs it sees that.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It ended already, or it is turning back anyway.
        """
        async with self._database.writing() as connection:
            row = await self._get(connection, saga_id)
            if row.state not in (SagaState.RUNNING, SagaState.STUCK) or row.failure is not None:
                raise IllegalSagaState(f"saga {saga_id} is {row.state} and cannot be cancelled", state=row.state)
            if row.cancel_reason is None:
                await self._change(connection, saga_id, cancel_reason=reason)

    async def unstick(self, saga_id: str, executor: str) -> None:
        """Take a saga that is stuck out of that state, for it to be run again.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It is not stuck.
        """
        async with self._database.writing() as connection:
            row = await self._get(connection, saga_id)
            if row.state != SagaState.STUCK:
                raise IllegalSagaState(f"saga {saga_id} is {row.state}, not stuck", state=row.state)
            state = SagaState.RUNNING if row.failure is None else SagaState.COMPENSATING
            values: dict[str, Any] = {"state": state, "stuck": "", "resumes": row.resumes + 1, "executor": executor}
            await self._change(connection, saga_id, **values)

    async def cancelled(self, ids: Collection[str]) -> set[str]:
        """Which of these somebody wants cancelled."""
        statement = sa.select(SAGAS.c.id).where(SAGAS.c.id.in_(ids), SAGAS.c.cancel_reason.is_not(None))
        async with self._database.reading() as connection:
            return set((await connection.execute(statement)).scalars())

    async def settled(self, ids: Collection[str]) -> set[str]:
        """Which of these have ended, or are stuck."""
        states = (*_FINAL, SagaState.STUCK)
        statement = sa.select(SAGAS.c.id).where(SAGAS.c.id.in_(ids), SAGAS.c.state.in_(states))
        async with self._database.reading() as connection:
            return set((await connection.execute(statement)).scalars())

    async def unfinished(self) -> Sequence[Any]:
        """Id, executor, state, name and version of all that have not ended."""
        columns = (SAGAS.c.id, SAGAS.c.executor, SAGAS.c.state, SAGAS.c.name, SAGAS.c.version, SAGAS.c.updated_at)
        statement = sa.select(*columns, SAGAS.c.stuck).where(SAGAS.c.state.in_(_OPEN))
        async with self._database.reading() as connection:
            return (await connection.execute(statement)).all()

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """Some that ended before this."""
        statement = sa.select(SAGAS.c.id).where(SAGAS.c.finished_at < moment).limit(limit)
        async with self._database.reading() as connection:
            return list((await connection.execute(statement)).scalars())

    async def forget(self, ids: Collection[str]) -> None:
        """Delete these with their history."""
        async with self._database.writing() as connection:
            await connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.saga_id.in_(ids)))
            await connection.execute(SAGAS.delete().where(SAGAS.c.id.in_(ids)))

    # Of the process that runs a saga.

    async def take(self, saga_id: str, holder: Holder) -> Any:
        """Make a saga our own and return its row, as DBOS has given it to us; a final one is only returned.

        Raises:
            LeaseLost: Our slot is not ours any more.
            UnknownSaga: There is none.
        """
        async with self._database.writing() as connection:
            await self._slots.check(connection, holder)
            row = await self._get(connection, saga_id)
            if row.state not in _FINAL and row.executor != holder.executor:
                await self._change(connection, saga_id, executor=holder.executor)
            return row

    async def begin(self, saga_id: str, holder: Holder, begun: Begun) -> int:
        """Note that an attempt begins, before anything is done; how often it was begun, this time included.

        Raises:
            LeaseLost: Our slot, or the saga, is not ours any more.
        """
        key = (ATTEMPTS.c.saga_id == saga_id, ATTEMPTS.c.sequence == begun.sequence)
        again: dict[str, Any] = {
            "executor": holder.executor,
            "started_at": now_utc(),
            "finished_at": None,
            "outcome": None,
            "detail": "",
            "result": None,
        }
        async with self._ours(saga_id, holder) as connection:
            repeated = ATTEMPTS.update().where(*key).values(begun=ATTEMPTS.c.begun + 1, **again)
            if (await connection.execute(repeated)).rowcount == 0:
                values: dict[str, Any] = {
                    "step": begun.step,
                    "occurrence": begun.occurrence,
                    "compensation": begun.compensation,
                    "number": begun.number,
                    "idempotency_key": begun.idempotency_key,
                    "begun": 1,
                }
                await connection.execute(
                    ATTEMPTS.insert().values(saga_id=saga_id, sequence=begun.sequence, **values, **again)
                )
            await self._change(connection, saga_id)
            return await connection.scalar(sa.select(ATTEMPTS.c.begun).where(*key)) or 1

    async def end(self, saga_id: str, holder: Holder, sequence: int, outcome: str, detail: str, result: Any) -> None:
        """Note how an attempt ended.

        Raises:
            LeaseLost: Our slot, or the saga, is not ours any more.
        """
        async with self._ours(saga_id, holder) as connection:
            await connection.execute(
                ATTEMPTS.update()
                .where(ATTEMPTS.c.saga_id == saga_id, ATTEMPTS.c.sequence == sequence)
                .values(finished_at=now_utc(), outcome=outcome, detail=detail[:LONGEST_TEXT], result=result)
            )

    async def turn(self, saga_id: str, holder: Holder, failure: SagaFailure) -> None:
        """Note that the saga turns back; raises as `begin`."""
        async with self._ours(saga_id, holder) as connection:
            values: dict[str, Any] = {"state": SagaState.COMPENSATING, "failure": failure.model_dump(mode="json")}
            await self._change(connection, saga_id, **values)

    async def stick(self, saga_id: str, holder: Holder, reason: str) -> None:
        """Note that somebody has to look at the saga; raises as `begin`."""
        async with self._ours(saga_id, holder) as connection:
            await self._change(connection, saga_id, state=SagaState.STUCK, stuck=reason[:LONGEST_TEXT])

    async def finish(self, saga_id: str, holder: Holder, state: SagaState, result: Any = None) -> None:
        """Note that the saga has ended; raises as `begin`."""
        async with self._ours(saga_id, holder) as connection:
            await self._change(connection, saga_id, state=state, result=result, finished_at=now_utc(), stuck="")

    @asynccontextmanager
    async def _ours(self, saga_id: str, holder: Holder) -> AsyncGenerator["AsyncConnection"]:
        async with self._database.writing() as connection:
            await self._slots.check(connection, holder)
            executor = await connection.scalar(sa.select(SAGAS.c.executor).where(SAGAS.c.id == saga_id))
            if executor != holder.executor:
                raise LeaseLost(f"{saga_id} is run by {executor}")
            yield connection

    async def _change(self, connection: "AsyncConnection", saga_id: str, **values: Any) -> None:
        changed: Mapping[str, Any] = {**values, "updated_at": now_utc()}
        await connection.execute(SAGAS.update().where(SAGAS.c.id == saga_id).values(**changed))

    async def _find(self, connection: "AsyncConnection", saga_id: str) -> Any:
        return (await connection.execute(sa.select(SAGAS).where(SAGAS.c.id == saga_id))).one_or_none()

    async def _get(self, connection: "AsyncConnection", saga_id: str) -> Any:
        row = await self._find(connection, saga_id)
        if row is None:
            raise UnknownSaga(f"there is no saga {saga_id}", saga_id=saga_id)
        return row

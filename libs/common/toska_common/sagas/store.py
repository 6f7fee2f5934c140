"""Sagas and their attempts in the database.

What a process writes while it runs a saga, it writes only under its lease and while the saga is its own: whoever was
stalled, and comes back when others have taken over, gets `LeaseLost` instead of beginning anything.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from toska_common.clock import now_utc
from toska_common.contracts.sagas import FINAL, SagaFailure, SagaState
from toska_common.sagas.errors import IllegalSagaState, LeaseLost, SagaIdTaken, UnknownSaga
from toska_common.sagas.slots import Holder, Slots
from toska_common.sagas.tables import ATTEMPTS, SAGAS

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as OfPostgresql
    from sqlalchemy.dialects.sqlite import Insert as OfSqlite

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


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, and when."""

    sequence: int
    outcome: str
    detail: str
    result: Any
    at: datetime


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
            LeaseLost: Our slot is not ours any more.
        """

        def work(connection: sa.Connection) -> bool:
            if self._insert(connection, new, holder):
                return True
            found = _get(connection, new.id)
            if (found.name, found.version, found.input) != (new.name, new.version, new.input):
                raise SagaIdTaken(
                    f"saga {new.id} is {found.name} version {found.version}, or was started with another input",
                    saga_id=new.id,
                )
            return False

        return await self._database.change(work, exclusive=False)

    def _insert(self, connection: sa.Connection, new: NewSaga, holder: Holder) -> bool:
        now = now_utc()
        values: dict[str, Any] = {
            "id": new.id,
            "name": new.name,
            "version": new.version,
            "state": SagaState.RUNNING,
            "input": new.input,
            "stuck": "",
            "created_at": now,
            "updated_at": now,
            "deadline_at": new.deadline_at,
            "executor": holder.executor,
            "traceparent": new.traceparent,
            "resumes": 0,
        }
        if _find(connection, new.id) is not None:
            return False
        self._slots.check(connection, holder)
        return connection.execute(_insert(connection, SAGAS, values).on_conflict_do_nothing()).rowcount == 1

    async def get(self, saga_id: str) -> Any:
        """One saga's row.

        Raises:
            UnknownSaga: There is none.
        """
        return await self._database.look(partial(_get, saga_id=saga_id))

    async def history(self, saga_id: str) -> tuple[Any, Sequence[Any]]:
        """One saga's row and those of its attempts, oldest first, of one moment.

        Raises:
            UnknownSaga: There is none.
        """

        def work(connection: sa.Connection) -> tuple[Any, Sequence[Any]]:
            row = _get(connection, saga_id)
            attempts = sa.select(ATTEMPTS).where(ATTEMPTS.c.saga_id == saga_id).order_by(ATTEMPTS.c.sequence)
            return row, connection.execute(attempts).all()

        return await self._database.look(work)

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
        return await self._rows(statement)

    async def request_cancel(self, saga_id: str, reason: str) -> None:
        """Note that a saga is to be cancelled; whoever runs it sees that.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It ended already, or it is turning back anyway.
        """

        def work(connection: sa.Connection) -> None:
            row = _get(connection, saga_id, lock=True)
            if row.state not in (SagaState.RUNNING, SagaState.STUCK) or row.failure is not None:
                raise IllegalSagaState(f"saga {saga_id} is {row.state} and cannot be cancelled", state=row.state)
            if row.cancel_reason is None:
                _change(connection, saga_id, cancel_reason=reason)

        await self._database.change(work)

    async def unstick(self, saga_id: str, executor: str) -> None:
        """Take a saga that is stuck out of that state, for it to be run again.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It is not stuck.
        """

        def work(connection: sa.Connection) -> None:
            row = _get(connection, saga_id, lock=True)
            if row.state != SagaState.STUCK:
                raise IllegalSagaState(f"saga {saga_id} is {row.state}, not stuck", state=row.state)
            state = SagaState.RUNNING if row.failure is None else SagaState.COMPENSATING
            values: dict[str, Any] = {"state": state, "stuck": "", "resumes": row.resumes + 1, "executor": executor}
            _change(connection, saga_id, **values)

        await self._database.change(work)

    async def cancelled(self, ids: Collection[str]) -> set[str]:
        """Which of these somebody wants cancelled."""
        return await self._ids(SAGAS.c.id.in_(ids), SAGAS.c.cancel_reason.is_not(None))

    async def settled(self, ids: Collection[str]) -> set[str]:
        """Which of these have ended, or are stuck."""
        return await self._ids(SAGAS.c.id.in_(ids), SAGAS.c.state.in_((*_FINAL, SagaState.STUCK)))

    async def unfinished(self) -> Sequence[Any]:
        """Id, executor, state, name and version of all that have not ended."""
        columns = (SAGAS.c.id, SAGAS.c.executor, SAGAS.c.state, SAGAS.c.name, SAGAS.c.version, SAGAS.c.updated_at)
        return await self._rows(sa.select(*columns, SAGAS.c.stuck).where(SAGAS.c.state.in_(_OPEN)))

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """Some that ended before this."""
        rows = await self._rows(sa.select(SAGAS.c.id).where(SAGAS.c.finished_at < moment).limit(limit))
        return [row.id for row in rows]

    async def forget(self, ids: Collection[str]) -> None:
        """Delete these with their history."""

        def work(connection: sa.Connection) -> None:
            connection.execute(ATTEMPTS.delete().where(ATTEMPTS.c.saga_id.in_(ids)))
            connection.execute(SAGAS.delete().where(SAGAS.c.id.in_(ids)))

        await self._database.change(work)

    async def _rows(self, statement: "sa.Select[*tuple[Any, ...]]") -> Sequence[Any]:
        return await self._database.look(lambda connection: connection.execute(statement).all())

    async def _ids(self, *conditions: sa.ColumnElement[bool]) -> set[str]:
        return {row.id for row in await self._rows(sa.select(SAGAS.c.id).where(*conditions))}

    # Of the process that runs a saga.

    async def take(self, saga_id: str, holder: Holder) -> Any:
        """Make a saga our own and return its row, as DBOS has given it to us; a final one is only returned.

        Raises:
            LeaseLost: Our slot is not ours any more.
            UnknownSaga: There is none.
        """
        row = await self.get(saga_id)
        if row.state in _FINAL or row.executor == holder.executor:
            return row  # whether the slot is still ours, the first step tells

        def work(connection: sa.Connection) -> Any:
            row = _get(connection, saga_id, lock=True)
            self._slots.check(connection, holder)
            if row.state not in _FINAL:
                _change(connection, saga_id, executor=holder.executor)
            return row

        return await self._database.change(work)

    async def begin(self, saga_id: str, holder: Holder, begun: Begun, before: Ended | None = None) -> int:
        """Note that an attempt begins, before anything is done; how often it was begun, this time included.

        Args:
            saga_id: Whose attempt it is.
            holder: Our hold on our slot.
            begun: The attempt.
            before: How the one before ended, if that is not noted yet.

        Raises:
            LeaseLost: Our slot, or the saga, is not ours any more.
        """
        again: dict[str, Any] = {
            "executor": holder.executor,
            "started_at": now_utc(),
            "finished_at": None,
            "outcome": None,
            "detail": "",
            "result": None,
        }
        key: dict[str, Any] = {"saga_id": saga_id, "sequence": begun.sequence}

        def work(connection: sa.Connection) -> int:
            self._hold(connection, saga_id, holder, before)
            statement = _insert(connection, ATTEMPTS, {**key, **asdict(begun), "begun": 1, **again})
            repeated = statement.on_conflict_do_update(
                index_elements=list(key), set_={"begun": ATTEMPTS.c.begun + 1, **again}
            )
            return connection.execute(repeated.returning(ATTEMPTS.c.begun)).scalar_one()

        return await self._database.change(work, exclusive=False)

    async def end(self, saga_id: str, holder: Holder, ended: Ended) -> None:
        """Note how an attempt ended, where the next one is not to begin at once; raises as `begin`."""
        await self._note(saga_id, holder, ended)

    async def turn(self, saga_id: str, holder: Holder, failure: SagaFailure, before: Ended | None = None) -> None:
        """Note that the saga turns back; raises as `begin`."""
        values: dict[str, Any] = {"state": SagaState.COMPENSATING, "failure": failure.model_dump(mode="json")}
        await self._note(saga_id, holder, before, **values)

    async def stick(self, saga_id: str, holder: Holder, reason: str, before: Ended | None = None) -> None:
        """Note that somebody has to look at the saga; raises as `begin`."""
        await self._note(saga_id, holder, before, state=SagaState.STUCK, stuck=reason[:LONGEST_TEXT])

    async def finish(
        self, saga_id: str, holder: Holder, state: SagaState, result: Any = None, before: Ended | None = None
    ) -> None:
        """Note that the saga has ended; raises as `begin`."""
        values: dict[str, Any] = {"state": state, "result": result, "finished_at": now_utc(), "stuck": ""}
        await self._note(saga_id, holder, before, **values)

    async def _note(self, saga_id: str, holder: Holder, before: Ended | None, **values: Any) -> None:
        def work(connection: sa.Connection) -> None:
            self._hold(connection, saga_id, holder, before, **values)

        await self._database.change(work, exclusive=False)

    def _hold(
        self, connection: sa.Connection, saga_id: str, holder: Holder, before: Ended | None, **values: Any
    ) -> None:
        """Change a saga that is ours, which keeps it so until the end of the transaction: others wait for its row."""
        ours = (SAGAS.c.executor == holder.executor, sa.exists().where(self._slots.held(holder)))
        changed = SAGAS.update().where(SAGAS.c.id == saga_id, *ours).values(**values, updated_at=now_utc())
        if connection.execute(changed).rowcount == 0:
            self._slots.check(connection, holder)
            executor = connection.scalar(sa.select(SAGAS.c.executor).where(SAGAS.c.id == saga_id))
            raise LeaseLost(f"{saga_id} is run by {executor}")
        if before is not None:
            connection.execute(_ended(saga_id, before))


def _ended(saga_id: str, ended: Ended) -> sa.Update:
    # Where a process died before it was noted, its successor knows the end from the journal; what is noted stays.
    unknown = (ATTEMPTS.c.saga_id == saga_id, ATTEMPTS.c.sequence == ended.sequence, ATTEMPTS.c.outcome.is_(None))
    values: dict[str, Any] = {"outcome": ended.outcome, "detail": ended.detail[:LONGEST_TEXT], "result": ended.result}
    return ATTEMPTS.update().where(*unknown).values(finished_at=ended.at, **values)


def _change(connection: sa.Connection, saga_id: str, **values: Any) -> None:
    connection.execute(SAGAS.update().where(SAGAS.c.id == saga_id).values(**values, updated_at=now_utc()))


def _find(connection: sa.Connection, saga_id: str, *, lock: bool = False) -> Any:
    statement = sa.select(SAGAS).where(SAGAS.c.id == saga_id)
    return connection.execute(statement.with_for_update() if lock else statement).one_or_none()


def _get(connection: sa.Connection, saga_id: str, *, lock: bool = False) -> Any:
    row = _find(connection, saga_id, lock=lock)
    if row is None:
        raise UnknownSaga(f"there is no saga {saga_id}", saga_id=saga_id)
    return row


def _insert(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> "OfPostgresql | OfSqlite":
    """An INSERT that knows about conflicts."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as of_postgresql

        return of_postgresql(table).values(values)
    from sqlalchemy.dialects.sqlite import insert as of_sqlite

    return of_sqlite(table).values(values)

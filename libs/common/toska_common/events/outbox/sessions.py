"""What outbox and inbox need of a transaction: SQLAlchemy's `AsyncConnection` and `AsyncSession` both have it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as OfPostgresql
    from sqlalchemy.dialects.sqlite import Insert as OfSqlite

Session = AsyncConnection | AsyncSession
Transactions = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
"""Begins a transaction that is committed when its block ends well: `engine.begin`."""

_WHOLE_WITHIN_S = 5.0


def whole(transactions: Transactions) -> Transactions:
    """Transactions which whoever is cancelled ends first; one that takes longer than 5 s fails with `TimeoutError`.

    aiosqlite has a thread for each connection, and SQLAlchemy closes one that is given up twice at once: the second
    answer never comes, and the task that waits for it keeps its event loop from ending.
    """

    @asynccontextmanager
    async def begin() -> AsyncGenerator[AsyncConnection]:
        with anyio.fail_after(_WHOLE_WITHIN_S, shield=True):
            async with transactions() as session:
                yield session

    return begin


def dialect_of(session: Session) -> str:
    """`postgresql` or `sqlite`."""
    if isinstance(session, AsyncSession):
        return session.get_bind().dialect.name
    return session.dialect.name


def insert(session: Session, table: sa.Table, values: dict[str, Any]) -> "OfPostgresql | OfSqlite":
    """An INSERT that knows about conflicts."""
    if dialect_of(session) == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as of_postgresql

        return of_postgresql(table).values(values)
    from sqlalchemy.dialects.sqlite import insert as of_sqlite

    return of_sqlite(table).values(values)


def clock_of(session: Session) -> sa.ColumnElement[float]:
    """The database's own clock, in seconds: the same for every process that asks."""
    if dialect_of(session) == "postgresql":
        return cast("sa.ColumnElement[float]", sa.extract("epoch", sa.func.clock_timestamp()))
    return (sa.func.julianday("now") - 2440587.5) * 86400.0

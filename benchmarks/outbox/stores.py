"""The databases that an outbox is in: SQLite as an app would have it for durable writes, and PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from toska_common.events.outbox import METADATA

from benchmarks.rigs import folder

_CLOSING_S = 0.1
"""aiosqlite closes a connection that was interrupted by a task of its own."""
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
STORES = (SQLITE, POSTGRESQL)

USUAL = sa.Table(
    "usual_outbox",
    METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("topic", sa.String(255), nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
)
"""What the usual outbox is kept in."""


@asynccontextmanager
async def opened(store: str, postgres: Any) -> AsyncGenerator[AsyncEngine]:
    """An engine over a new database with the tables of both outboxes."""
    if store == SQLITE:
        with folder("outbox") as made:
            async with _engine(f"sqlite+aiosqlite:///{made / 'outbox.sqlite'}") as engine:
                yield engine
        return
    url: str = await postgres.make_database()
    async with _engine(url.replace("postgresql://", "postgresql+asyncpg://")) as engine:
        yield engine


@asynccontextmanager
async def _engine(url: str) -> AsyncGenerator[AsyncEngine]:
    engine = create_async_engine(url, pool_size=8)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare)
    try:
        async with engine.begin() as session:
            await session.run_sync(METADATA.create_all)
        yield engine
    finally:
        await engine.dispose()
        await asyncio.sleep(_CLOSING_S)


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()

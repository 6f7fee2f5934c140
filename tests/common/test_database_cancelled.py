"""Transactions that are cancelled, wherever they are: whole or not there, and in nobody's way afterwards."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy as sa
from toska_common.database import Database, parse_location
from toska_common.database.sqlite_driver import connect_sqlite
from toska_tests.cancelling import Work, cancelled_as_task, cancelled_by_scope

MIGRATIONS = "toska_router.migrations"
COUNT = sa.text("SELECT count(*) FROM marks")

Cancelled = Callable[[Work, int], Awaitable[bool]]


@pytest.fixture
async def two(url: str, tmp_path: Path) -> AsyncGenerator[tuple[Database, Database]]:
    """Two users of one database, as two processes would be."""
    location = parse_location(url, service="router", home=tmp_path)
    mine, theirs = Database(location, migrations=MIGRATIONS), Database(location, migrations=MIGRATIONS)
    async with mine.writing() as connection:
        await connection.execute(sa.text("CREATE TABLE marks (n INTEGER)"))
    await theirs.open()
    yield mine, theirs
    for database in (mine, theirs):
        await database.aclose()


@pytest.mark.parametrize("cancelled", [cancelled_by_scope, cancelled_as_task])
async def test_one_that_is_cancelled_at_any_await_leaves_nothing_behind(
    two: tuple[Database, Database], cancelled: Cancelled
) -> None:
    mine, theirs = two
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def work() -> None:
        async with mine.writing() as connection:
            await connection.execute(sa.text("INSERT INTO marks VALUES (1)"))
            await anyio.lowlevel.checkpoint()
            assert (await connection.execute(sa.text("SELECT n FROM marks"))).all()
            await connection.execute(sa.text("INSERT INTO marks VALUES (2)"))
        async with mine.reading() as connection:
            await connection.scalar(COUNT)

    place = 0
    while await cancelled(work, place):
        if mine.location.file is not None:
            # The lock is free as soon as the block has ended, and not some time later.
            with closing(sqlite3.connect(mine.location.file, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
        async with theirs.writing() as connection:
            assert (await connection.scalar(COUNT) or 0) % 2 == 0, f"half of it is there, cancelled at await {place}"
        place += 1
    assert place > 8
    async with mine.writing() as connection:
        assert await connection.scalar(COUNT)
    assert complaints == []


async def test_whoever_waits_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    location = parse_location(f"sqlite://{tmp_path}", service="router", home=tmp_path)
    mine, theirs = Database(location, migrations=MIGRATIONS), Database(location, migrations=MIGRATIONS)
    await theirs.open()
    async with mine.writing():
        began = anyio.current_time()
        with anyio.move_on_after(0.2) as patience:
            async with theirs.writing():
                raise AssertionError("two write at once")
        assert patience.cancelled_caught
        assert anyio.current_time() - began < 2
    async with theirs.writing():  # as soon as it is free
        pass
    await mine.aclose()
    await theirs.aclose()


async def test_whoever_waits_for_the_lock_is_told_after_some_time(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        connection = await connect_sqlite(file, busy_s=0.3)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await connection.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        await connection.execute("BEGIN IMMEDIATE")
        await connection.close()


async def test_a_cursor_that_was_not_read_keeps_no_lock(tmp_path: Path) -> None:
    connection = await connect_sqlite(tmp_path / "a.sqlite")
    await connection.execute("PRAGMA journal_mode=WAL")
    await connection.execute("CREATE TABLE marks (n INTEGER)")
    await connection.execute("BEGIN IMMEDIATE")
    await connection.execute("INSERT INTO marks VALUES (1), (2), (3)")
    unread = await connection.execute("SELECT n FROM marks")
    await connection.close()
    with closing(sqlite3.connect(tmp_path / "a.sqlite", timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM marks").fetchone() == (0,)
    del unread

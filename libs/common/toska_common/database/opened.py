"""A database that was reached: its transactions, and its tables brought up to date beforehand."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import anyio
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from toska_common.database.engine import create_engine, translated
from toska_common.database.location import DatabaseLocation
from toska_common.database.upkeep import Schema, Upgrade, announce, bring_up_to_date, exclude_others, make_schema

log = structlog.get_logger(__name__)
T = TypeVar("T")


def read_schema(package: ModuleType) -> Schema:
    """What a package of migrations says."""
    return Schema(package.HEAD, package.METADATA, Path(package.__path__[0]))


class _Work(Protocol):
    """`BlockingWork`, which only those load who have use for it."""

    async def run(self, work: Callable[[sa.Connection], T]) -> T: ...

    async def aclose(self) -> None: ...


class OpenDatabase:
    """Made by `open`."""

    def __init__(self, engine: AsyncEngine, location: DatabaseLocation) -> None:
        self._engine = engine
        self._location = location
        # A thread each, made with its first use: who only reads does not wait for who writes.
        self._blocking: dict[bool, _Work] = {}
        self.upgrade: Upgrade | None = None
        """What was done to its tables."""

    @classmethod
    async def open(cls, location: DatabaseLocation, schema: Schema, *, kept: int = 1) -> "OpenDatabase":
        """Reach the database and bring its tables up to date, in one transaction.

        Raises:
            ConfigurationError: Its tables are those of another release, or we may not make any.
            DatabaseUnavailable: It does not answer.
        """
        with translated(location):
            opened = cls(create_engine(location, kept=kept), location)
            async with AsyncExitStack() as undo:
                undo.push_async_callback(opened.aclose)
                async with opened._changing() as connection:
                    await make_schema(connection, location)
                    opened.upgrade = await connection.run_sync(bring_up_to_date, location, schema)
                undo.pop_all()
        log.info("database_opened", database=str(location))
        return opened

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that only reads, all of it of one moment; raises as `Database.reading`."""
        with translated(self._location):
            async with self._engine.connect() as plain:
                # PostgreSQL otherwise lets each statement see what was committed before that one; SQLite never does.
                sees = {} if self._location.file is not None else {"isolation_level": "REPEATABLE READ"}
                connection = await plain.execution_options(**sees)
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that excludes all others that write; raises as `Database.writing`."""
        with translated(self._location):
            async with self._changing() as connection:
                yield connection
                await announce(connection, self._location)

    async def look(self, work: Callable[[sa.Connection], T]) -> T:
        """Have a function read in one transaction; raises as `Database.look`."""
        if self._location.file is None:
            async with self.reading() as connection:
                return await connection.run_sync(work)
        with translated(self._location):
            return await self._worker(self._location.file, writes=False).run(work)

    async def change(self, work: Callable[[sa.Connection], T], *, exclusive: bool) -> T:
        """Have a function write in one transaction; raises as `Database.change`."""
        with translated(self._location):
            if self._location.file is not None:
                return await self._worker(self._location.file, writes=True).run(work)
            async with self._changing(exclusive=exclusive) as connection:
                given = await connection.run_sync(work)
                await announce(connection, self._location)
                return given

    def _worker(self, file: Path, *, writes: bool) -> _Work:
        if writes not in self._blocking:
            name = f"{self._location.service}-{'writes' if writes else 'reads'}"
            self._blocking[writes] = import_module("toska_common.database.blocking").BlockingWork(
                file, name, writes=writes
            )
        return self._blocking[writes]

    @asynccontextmanager
    async def _changing(self, *, exclusive: bool = True) -> AsyncGenerator[AsyncConnection]:
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(toska_begin="BEGIN IMMEDIATE")
            async with connection.begin():
                if exclusive:
                    await exclude_others(connection, self._location)
                yield connection

    async def aclose(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(2, shield=True):
            for worker in self._blocking.values():
                await worker.aclose()
            await self._engine.dispose()

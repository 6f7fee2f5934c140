"""`Database`: transactions of one service, on tables that are brought up to date when they are first needed.

    closed ──first use──▶ opening (SQLAlchemy loaded, tables made or migrated under a lock) ──▶ open ──aclose──▶ closed
                             │
                             └── it does not answer: `DatabaseUnavailable`, and the next use tries again

Transactions that write exclude one another, also those of other processes over the same database, so that what is
read in one is what it changes.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.to_thread import run_sync

from toska_common.database.errors import DatabaseUnavailable
from toska_common.database.location import DatabaseLocation

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection

    from toska_common.database.opened import OpenDatabase

T = TypeVar("T")


class Database:
    """One service's database.

    Args:
        location: Where it is.
        migrations: Name of the package with the service's migrations: `HEAD`, the revision of the newest; `METADATA`,
            the tables as they are then; and Alembic's `versions`.
        kept: Connections to PostgreSQL that stay open once they were needed.
    """

    def __init__(self, location: DatabaseLocation, *, migrations: str, kept: int = 1) -> None:
        self.location = location
        self._kept = kept
        self._migrations = migrations
        self._opened: OpenDatabase | None = None
        self._file: tuple[int, int] | None = None
        self._opening = anyio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it was reached and its tables are up to date."""
        return self._opened is not None

    def is_absent(self) -> bool:
        """Whether nothing has ever been stored, which needs no SQLAlchemy to tell; `False` where that is not known."""
        return not self.is_open and self.location.file is not None and not self.location.file.exists()

    async def load(self) -> None:
        """Load what `open` needs: that takes seconds on a busy machine, and says nothing of the database."""
        if self._opened is None:
            # In a thread, since importing takes long enough to keep a whole event loop waiting.
            await run_sync(import_module, "toska_common.database.opened")
            await run_sync(import_module, self._migrations)

    async def open(self) -> "OpenDatabase":
        """Reach the database and bring its tables up to date.

        Raises:
            ConfigurationError: Its tables are those of another release, or we may not make any.
            DatabaseUnavailable: It does not answer.
        """
        async with self._opening:
            opened = self._opened
            if opened is None:
                await self.load()
                module = import_module("toska_common.database.opened")
                package = import_module(self._migrations)
                opened = self._opened = await module.OpenDatabase.open(
                    self.location, module.read_schema(package), kept=self._kept
                )
                self._file = self._find_file()
            elif self._file != self._find_file():
                # What was written to it would be lost with this process.
                raise DatabaseUnavailable(
                    f"{self.location}: the file that was opened is not there any more; put it back, or restart"
                )
            return opened

    def _find_file(self) -> tuple[int, int] | None:
        if self.location.file is None:
            return None
        try:
            found = self.location.file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator["AsyncConnection"]:
        """A transaction that only reads: whatever others commit meanwhile, all that it reads held at one moment.

        Raises:
            DatabaseUnavailable: It does not answer.
        """
        opened = await self.open()
        async with opened.reading() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["AsyncConnection"]:
        """A transaction that excludes all others that write, committed when the block ends well.

        Raises:
            DatabaseUnavailable: It does not answer, or the lock was not to be had in time.
        """
        opened = await self.open()
        async with opened.writing() as connection:
            yield connection

    async def look(self, work: "Callable[[sa.Connection], T]") -> T:
        """Have a function read what it returns, all of it of one moment, wherever that is cheapest.

        Raises:
            DatabaseUnavailable: It does not answer.
        """
        return await (await self.open()).look(work)

    async def change(self, work: "Callable[[sa.Connection], T]", *, exclusive: bool = True) -> T:
        """Have a function write in a transaction that is committed when it returns; what it raises undoes it.

        It is quicker than `writing` on SQLite, where it runs in a thread, and so may touch its connection alone.

        Args:
            work: Called once.
            exclusive: Whether it excludes all others that write. Without, it has to lock the rows that it goes by, on
                PostgreSQL; SQLite has one writer at a time anyway.

        Raises:
            DatabaseUnavailable: It does not answer, or the lock was not to be had in time.
        """
        return await (await self.open()).change(work, exclusive=exclusive)

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever somebody may have changed something, for ever; our own changes count too."""
        from toska_common.database.watching import watch_file, watch_notifications

        if self.location.file is not None:
            await watch_file(self, self.location.file, on_change)
        else:
            await watch_notifications(self.location, on_change)

    async def aclose(self) -> None:
        """Close all connections; a database that is used again opens anew."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with anyio.move_on_after(2, shield=True):
                await opened.aclose()

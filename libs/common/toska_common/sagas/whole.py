"""Transactions that are not interrupted in the middle."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from toska_common.database import Database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class WholeTransactions:
    """A database whose transactions run to their end whoever is cancelled meanwhile; its timeouts still hold.

    Sagas cancel at any moment, by wish or when a process stops. A connection to SQLite that is given up in the middle
    of a statement is closed by its driver some time later, and keeps the lock of all that write until then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_sqlite = database.location.file is not None

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator["AsyncConnection"]:
        """As `Database.reading`."""
        with anyio.CancelScope(shield=True):
            async with self._database.reading() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["AsyncConnection"]:
        """As `Database.writing`."""
        with anyio.CancelScope(shield=True):
            async with self._database.writing() as connection:
                yield connection

"""Whole transactions on SQLite in a thread of their own.

That is one hop for all of a transaction, where aiosqlite takes three for each statement; and ours wait for their turn,
where SQLite has those that meet sleep and ask again.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from toska_common.database.engine import BUSY_TIMEOUT_S, prepare_sqlite
from toska_common.database.turns import turns_of

T = TypeVar("T")


class BlockingWork:
    """A connection with a thread: transactions come one after the other, in the order in which they were asked for."""

    def __init__(self, file: Path, name: str, *, writes: bool) -> None:
        def connect() -> sqlite3.Connection:
            # Closed by another thread perhaps, but never used by two at once.
            return sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)

        engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        prepare_sqlite(engine)
        self._engine = engine.execution_options(toska_begin="BEGIN IMMEDIATE" if writes else "BEGIN")
        self._turns = turns_of(file) if writes else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Do it in a transaction, which is committed when it returns; whoever is cancelled meanwhile waits for that."""
        with anyio.CancelScope(shield=True):
            return await asyncio.wrap_future(self._thread.submit(self._run, work))
        raise AssertionError("unreachable")

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            with (
                self._turns.held(BUSY_TIMEOUT_S) if self._turns else nullcontext(),
                self._engine.begin() as connection,
            ):
                return work(connection)
        except sqlite3.OperationalError as error:  # the turn did not come
            raise OperationalError(None, None, error) from error

    async def aclose(self) -> None:
        """Close the connection, once what was asked for is done."""
        await asyncio.wrap_future(self._thread.submit(self._engine.dispose))
        self._thread.shutdown(wait=False)

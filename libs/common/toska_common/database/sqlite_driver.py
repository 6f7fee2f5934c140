"""Connections to SQLite that are safe to cancel.

aiosqlite has a thread for each connection, and whoever is cancelled while that is at work leaves it behind: SQLAlchemy
gives such a connection up, closing it is cancelled in turn (a scope of anyio cancels every await, not only one), and
the thread keeps the lock of all that write for as long as what it has to do takes. With a cursor that was not read to
its end it keeps it even then, until the cursor is collected. So here whatever was begun is waited for, and what waits
is the wish for the lock alone, which a cancelled task gives up:

    execute ──▶ in the thread, to its end ──▶ done
       ▲                └──the database is locked──▶ a pause, which can be cancelled ──┐
       └───────────────────────────────────────────────────────────────────────────────┘
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiosqlite
import anyio

_LOOK_S: Final = 0.1
"""How long SQLite waits for it by itself, where nobody can cancel it."""
_PAUSE_S: Final = 0.002


async def connect_sqlite(file: Path, *, busy_s: float = 4.0) -> aiosqlite.Connection:
    """A connection that begins no transactions by itself, and waits for a lock for `busy_s`."""
    return await _CalmConnection(file, busy_s)


class _CalmConnection(aiosqlite.Connection):
    def __init__(self, file: Path, busy_s: float) -> None:
        super().__init__(lambda: _open(file), iter_chunk_size=64)
        self._thread.daemon = True  # as SQLAlchemy has it: a process ends though a disk does not answer
        self._busy_s = busy_s
        self._is_stopping = False

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        deadline = anyio.current_time() + self._busy_s
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    return await super()._execute(fn, *args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
            except sqlite3.OperationalError as error:
                # Of several statements, those before the one that found it locked have had their effects.
                is_one = getattr(fn, "__name__", "") != "executemany"
                if not _is_busy(error) or not is_one or anyio.current_time() >= deadline:
                    raise
            await anyio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """Undo what was not committed, whatever cursors there are still, and close."""
        if self._connection is not None and self._connection.in_transaction:
            await self.rollback()
        await super().close()

    def stop(self) -> asyncio.Future[Any] | None:
        """End the thread, after all that it was given; once, since nobody answers the second time."""
        if self._is_stopping:
            return None
        self._is_stopping = True
        return super().stop()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _open(file: Path) -> sqlite3.Connection:
    # aiosqlite lets nobody but its thread near the connection, except for attributes.
    return sqlite3.connect(file, timeout=_LOOK_S, isolation_level=None, check_same_thread=False)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether waiting helps: not if what was read is out of date, and is to be read again."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT

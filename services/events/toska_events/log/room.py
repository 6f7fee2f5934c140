"""How large the log's file may grow, and what happens once it has."""

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toska_common.events.errors import LogFull

if TYPE_CHECKING:
    from collections.abc import Generator

_RESERVE_PAGES = 512
"""Room that publishing leaves, so that a full log can still be told what was settled, and so become less full."""
_NEARLY = 0.85
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE}


class Room:
    """Pages of the file: those there are, and those there may be."""

    def __init__(self, connection: sqlite3.Connection, max_bytes: int) -> None:
        self._connection = connection
        self._page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        self._most = max(max_bytes // self._page_bytes, _RESERVE_PAGES * 2)
        self._limit(self._most - _RESERVE_PAGES)

    @property
    def used_bytes(self) -> int:
        """Of the file; what was freed within it is not counted."""
        count = self._connection.execute("PRAGMA page_count").fetchone()[0]
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        return (count - free) * self._page_bytes

    @property
    def max_bytes(self) -> int:
        """What the file may grow to."""
        return self._most * self._page_bytes

    @property
    def is_nearly_full(self) -> bool:
        """Whether publishing is about to be refused."""
        return self.used_bytes > _NEARLY * (self._most - _RESERVE_PAGES) * self._page_bytes

    @contextmanager
    def with_reserve(self) -> "Generator[None]":
        """Let the block have the reserve too."""
        self._limit(self._most)
        try:
            yield
        finally:
            self._limit(self._most - _RESERVE_PAGES)

    def _limit(self, pages: int) -> None:
        self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def raise_if_full(error: sqlite3.OperationalError) -> None:
    """Translate what SQLite says of a lack of room.

    Raises:
        LogFull: That is what it says.
    """
    if error.sqlite_errorcode in _FULL:
        raise LogFull(
            "the event log has no room left, on its disk or within TOSKA_EVENTS_MAX_BYTES; nothing was stored"
        ) from error

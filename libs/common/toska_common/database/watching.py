"""Noticing what others commit: by notifications of PostgreSQL, by looking at SQLite's files.

Both may tell too often and never too seldom: whoever is told reads what there is.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from toska_common.database.location import DatabaseLocation

if TYPE_CHECKING:
    from toska_common.database.database import Database

log = structlog.get_logger(__name__)

LOOKED_AT = timedelta(milliseconds=50)
"""How often SQLite's files are looked at: two calls of `stat`, 3 µs."""
CERTAIN_AFTER = timedelta(seconds=2)
"""How long a commit can go unseen whose times the file system could not tell from another's."""
_ASKED_EVERY = timedelta(seconds=5)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

Stamp = tuple[tuple[int, int, int] | None, ...]


async def watch_file(database: "Database", file: Path, on_change: Callable[[], None]) -> None:
    """Look at the database's file and its log for ever, and tell of every change of them."""
    log_file = file.with_name(f"{file.name}-wal")
    before = stamp(file, log_file)
    unseen = timedelta()
    while True:
        await anyio.sleep(LOOKED_AT.total_seconds())
        unseen += LOOKED_AT
        now = stamp(file, log_file)
        if now != before or (unseen >= CERTAIN_AFTER and database.is_open):
            before, unseen = now, timedelta()
            on_change()


async def watch_notifications(location: DatabaseLocation, on_change: Callable[[], None]) -> None:
    """Listen for ever, on a connection of its own; one that is lost is made anew, and may have missed something."""
    from toska_common.database.engine import connect_postgresql

    pause = _FIRST_PAUSE_S
    while True:
        try:
            connection = await connect_postgresql(location)
            try:

                def notified(*_: object) -> None:
                    on_change()

                await connection.add_listener(location.schema, notified)
                pause = _FIRST_PAUSE_S
                on_change()
                await _until_lost(connection)
            finally:
                connection.terminate()
        except Exception as error:  # noqa: BLE001 - whatever a driver has to say of a database that is away
            log.warning("database_listening_lost", database=str(location), reason=str(error) or type(error).__name__)
            on_change()  # so that whoever is told finds out by themselves
        await anyio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


async def _until_lost(connection: Any) -> None:
    lost = anyio.Event()

    def closed(_: object) -> None:
        lost.set()

    connection.add_termination_listener(closed)
    while not lost.is_set():
        with anyio.move_on_after(_ASKED_EVERY.total_seconds()):
            await lost.wait()
        if not lost.is_set():
            # A peer that vanished without a word is noticed by its silence.
            await connection.execute("SELECT 1")


def stamp(*paths: Path) -> Stamp:
    """What changes with every commit that the file system can tell from the one before."""
    return tuple(_stamp_of(path) for path in paths)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the one call of the loop, and Path.stat does the same with more steps
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

"""Writers of one process on one SQLite file take turns, in the order in which they came.

SQLite has one writer at a time. Who comes meanwhile sleeps for a while, asks again, and sleeps longer, up to 100 ms:
with a few writers that always have more to write, some of them sleep for seconds. A lock of ours costs microseconds,
and hands the turn to whoever waited longest. SQLite's own is what holds, also among processes; this only spares the
sleeping.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

PATIENCE_S = 30.0
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN"})


class Turns:
    """A lock that goes to whoever waited longest; it is taken and given back by whatever threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self, patience_s: float = PATIENCE_S) -> None:
        """Wait for the turn.

        Raises:
            sqlite3.OperationalError: It did not come in time, as SQLite says it.
        """
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=patience_s):
            return
        with self._mutex:
            if mine in self._waiting:
                self._waiting.remove(mine)
                raise sqlite3.OperationalError("database is locked")

    def give(self) -> None:
        """Hand it to the next."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    @property
    def is_taken(self) -> bool:
        """Whether somebody has it."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting)

    @contextmanager
    def held(self, patience_s: float) -> Generator[None]:
        """The turn, for the block; raises as `take`."""
        self.take(patience_s)
        try:
            yield
        finally:
            self.give()


_mutex = threading.Lock()
_known: WeakValueDictionary[Path, Turns] = WeakValueDictionary()


def turns_of(file: Path) -> Turns:
    """Those of a file, the same for all who ask while somebody keeps them."""
    with _mutex:
        return _known.setdefault(file.resolve(), Turns())


def connect_in_turn(file: Path) -> sqlite3.Connection:
    """A connection whose transactions take the lock with their first statement that writes, when it is their turn."""
    turns = turns_of(file)

    class Connection(_Connection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.turns = turns

    # As SQLAlchemy's pool has it: a connection goes from thread to thread, and is never used by two at once.
    return sqlite3.connect(file, isolation_level="IMMEDIATE", check_same_thread=False, factory=Connection)


class _Connection(sqlite3.Connection):
    turns: Turns
    has_turn = False

    def cursor(self, factory: Any = None) -> "_Cursor":
        return super().cursor(_Cursor)

    def prepare_for(self, statement: str) -> None:
        """Wait for the turn, if this statement begins to write."""
        if not self.has_turn and statement.split(None, 1)[0].upper() in _WRITING:
            self.turns.take()
            self.has_turn = True

    def commit(self) -> None:
        try:
            super().commit()
        finally:
            self._pass_on()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._pass_on()

    def close(self) -> None:
        super().close()
        self._pass_on()

    def _pass_on(self) -> None:
        if self.has_turn and not _in_transaction(self):
            self.has_turn = False
            self.turns.give()


def _in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # it is closed
        return False


class _Cursor(sqlite3.Cursor):
    def execute(self, statement: str, *parameters: Any) -> "_Cursor":  # pyright: ignore[reportIncompatibleMethodOverride]
        cast("_Connection", self.connection).prepare_for(statement)
        super().execute(statement, *parameters)
        return self

    def executemany(self, statement: str, parameters: Any) -> "_Cursor":  # pyright: ignore[reportIncompatibleMethodOverride]
        cast("_Connection", self.connection).prepare_for(statement)
        super().executemany(statement, parameters)
        return self

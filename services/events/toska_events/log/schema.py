"""The file of the event log: making, opening and judging it.

One process opens it: a lock beside it says who. A file that is broken or of a later version is an error that names it,
and is left as it is; whether an event may be forgotten is not for a program to decide.
"""

import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from toska_common.errors import ConfigurationError

FILE_NAME = "log.sqlite"
LOCK_NAME = "log.lock"
SCHEMA_VERSION = 1
_APPLICATION_ID = 0x746F6576
"""`toev`, so that a database of something else is not taken for a log."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, published INTEGER NOT NULL,
    events INTEGER NOT NULL, bytes INTEGER NOT NULL, last_at INTEGER NOT NULL, time_to_live INTEGER NOT NULL
);
CREATE TABLE events (
    offset INTEGER PRIMARY KEY, topic INTEGER NOT NULL, priority INTEGER NOT NULL, at INTEGER NOT NULL,
    due INTEGER NOT NULL, expires INTEGER NOT NULL, head BLOB NOT NULL, data BLOB NOT NULL
);
CREATE INDEX events_by_topic ON events (topic);
CREATE INDEX events_by_priority ON events (priority) WHERE priority <> 1;
CREATE INDEX events_by_due ON events (due) WHERE due > 0;
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, patterns TEXT NOT NULL, ordered INTEGER NOT NULL,
    attempts INTEGER NOT NULL, low INTEGER NOT NULL, normal INTEGER NOT NULL, high INTEGER NOT NULL,
    delivered INTEGER NOT NULL, acked INTEGER NOT NULL, open BLOB NOT NULL
);
CREATE TABLE held (
    group_id INTEGER NOT NULL, offset INTEGER NOT NULL, due INTEGER NOT NULL, attempts INTEGER NOT NULL,
    blocks INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (group_id, offset)
) WITHOUT ROWID;
CREATE INDEX held_by_offset ON held (offset);
CREATE INDEX held_by_due ON held (group_id, due, offset);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, offset INTEGER NOT NULL, topic TEXT NOT NULL,
    head BLOB NOT NULL, data BLOB NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, died_at INTEGER NOT NULL
);
CREATE INDEX dead_by_group ON dead (group_id);
"""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Own the log of a folder, which is made if need be, for as long as the block lasts.

    Raises:
        ConfigurationError: Another process does, or the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot use {folder} for the event log: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigurationError(
                f"the event log in {folder} is open in another process (pid {holder}); "
                "stop it, or choose another TOSKA_HOME"
            ) from error
        with suppress(OSError):  # for people: a full disk must not keep the log from becoming less full
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def connect(path: Path, *, fsync_commits: bool) -> sqlite3.Connection:
    """Open the file for writing; it is made if it is not there.

    Raises:
        ConfigurationError: It is broken, of a later version, something else, or cannot be used.
    """
    try:
        path.touch(mode=0o600)
        connection = _connect(path)
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"cannot open the event log {path}: {error}") from error
    try:
        _prepare(connection, path, fsync_commits=fsync_commits)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file a second time, to read beside the writer."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # Each connection has one thread that uses it; it is only opened and closed in others.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)


def _prepare(connection: sqlite3.Connection, path: Path, *, fsync_commits: bool) -> None:
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"the event log {path} is of version {version}, and this program knows {SCHEMA_VERSION}: "
                "run the newer program, or move the file away to begin with an empty log"
            )
        if tables and (owner != _APPLICATION_ID or version < 1):
            raise ConfigurationError(f"{path} is a database of something else, and no event log; move it away")
        if not tables:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if fsync_commits else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if not tables:
            _create(connection)
        _check(connection, path)
    except sqlite3.DatabaseError as error:
        raise _broken(path, str(error)) from error


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; "
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    # All of a large file would take too long at each start: what is small is checked now, the rest as it is read.
    for table in ("meta", "topics", "groups", "held", "dead"):
        found = [row[0] for row in connection.execute(f"PRAGMA quick_check({table})")]
        if found != ["ok"]:
            raise _broken(path, found[0])
    with closing(connection.execute("SELECT head, data FROM events ORDER BY offset DESC LIMIT 1000")) as rows:
        for _ in rows:
            pass


def _broken(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the event log {path} is broken ({reason}); nothing of it was changed. Restore it, or save what can be read "
        f"with `sqlite3 {path.name} .recover`, or move it away to begin with an empty log"
    )

"""State that outlives the process: one SQLite file, written by one thread in group commits.

Rows that changed wait in memory, the newest of each key only; the writer takes all of them into one transaction. So a
commit costs one fsync for everybody who waits for it, what waits is bounded by the registry's own size, and the file
always holds a state that the registry really was in. `flush` returns once everything saved before it is durable.

What is stored are registrations, nodes, verdicts, keys, sessions, prepared queries and the delays of lost locks.
Renewals are not: after a restart each lease and each session gets one whole TTL. Indexes are reserved in strides, so
that after a crash none is given out twice.
"""

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from toska_common import files
from toska_common.errors import ConfigurationError

from toska_discovery.changes import Changes
from toska_discovery.errors import StoreUnavailable
from toska_discovery.instance import Instance
from toska_discovery.kv import Entry
from toska_discovery.node import Node
from toska_discovery.query import PreparedQuery
from toska_discovery.rows import (
    entry_columns,
    instance_column,
    node_column,
    query_column,
    read_entry,
    read_instance,
    read_node,
    read_query,
    read_session,
    session_column,
)
from toska_discovery.session import Session

log = structlog.get_logger(__name__)

FILE_NAME = "discovery.sqlite"
SCHEMA_VERSION = 1
INDEX_STRIDE = 100_000
"""Indexes reserved at a time; the next stride is reserved when half of one is used."""
RETRY_PAUSE_S = 1.0
CLOSE_TIMEOUT_S = 2.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, body TEXT NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queries (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delays (key TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
"""

_WRITES = {
    "meta": ("INSERT OR REPLACE INTO meta VALUES (?, ?)", ""),
    "instances": ("INSERT OR REPLACE INTO instances VALUES (?, ?)", "DELETE FROM instances WHERE id = ?"),
    "nodes": ("INSERT OR REPLACE INTO nodes VALUES (?, ?)", "DELETE FROM nodes WHERE name = ?"),
    "keys": ("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", "DELETE FROM keys WHERE name = ?"),
    "sessions": ("INSERT OR REPLACE INTO sessions VALUES (?, ?)", "DELETE FROM sessions WHERE id = ?"),
    "queries": ("INSERT OR REPLACE INTO queries VALUES (?, ?)", "DELETE FROM queries WHERE id = ?"),
    "delays": ("INSERT OR REPLACE INTO delays VALUES (?, ?)", "DELETE FROM delays WHERE key = ?"),
}

_Row = Instance | Node | Entry | Session | PreparedQuery | float | str | None
"""What a row is made of; `None` takes it away. It becomes SQL in the writer, off the event loop."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the file held. `index` is above every index that was given out before."""

    node_id: str
    index: int
    instances: list[Instance] = field(default_factory=list[Instance])
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    keys: list[Entry] = field(default_factory=list[Entry])
    sessions: list[Session] = field(default_factory=list[Session])
    queries: list[PreparedQuery] = field(default_factory=list[PreparedQuery])
    delays: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])


class SqliteStore:
    """The registry's state file, while open.

    Attributes:
        stored: What it held when it was opened.
        failure: Why the last commit failed, until one succeeds again.
        commits: Commits so far.
    """

    def __init__(self, connection: sqlite3.Connection, stored: Stored) -> None:
        self.stored = stored
        self.failure: str | None = None
        self.commits = 0
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Condition()
        self._dirty: dict[tuple[str, str], _Row] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._busy = False
        self._closing = False
        self._reserved = stored.index + INDEX_STRIDE
        self._thread = threading.Thread(target=self._run, name="discovery-store", daemon=True)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncGenerator["SqliteStore"]:
        """Open the state file in `folder`, making it if need be; one that cannot be read is kept aside.

        Raises:
            ConfigurationError: Another process has it open, or the folder cannot be written.
        """
        connection, stored = await asyncio.to_thread(_open_file, folder / FILE_NAME)
        store = cls(connection, stored)
        store._thread.start()
        try:
            yield store
        finally:
            await asyncio.to_thread(store._close)

    def save(self, changes: Changes) -> None:
        """Have `changes` written soon; waits for nothing."""
        if not (changes.index or changes.instances or changes.nodes or changes.delays):
            return
        with self._lock:
            for instance_id, instance in changes.instances.items():
                self._dirty["instances", instance_id] = instance
            for name, node in changes.nodes.items():
                self._dirty["nodes", name] = node
            for key, entry in changes.keys.items():
                self._dirty["keys", key] = entry
            for session_id, session in changes.sessions.items():
                self._dirty["sessions", session_id] = session
            for query_id, query in changes.queries.items():
                self._dirty["queries", query_id] = query
            for key, delay_s in changes.delays.items():
                self._dirty["delays", key] = delay_s
            if changes.index > self._reserved - INDEX_STRIDE // 2:
                self._reserved = changes.index + INDEX_STRIDE
                self._dirty["meta", "index"] = str(self._reserved)
            self._lock.notify()

    async def flush(self) -> None:
        """Wait until everything saved so far is durable.

        Raises:
            StoreUnavailable: It cannot be written now; it stays in memory and will be tried again.
        """
        with self._lock:
            if not self._dirty and not self._busy:
                return
            future = self._loop.create_future()
            self._waiting.append(future)
            self._lock.notify()
        await future

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._dirty or self._waiting or self._closing):
                    self._lock.wait()
                if not self._dirty and not self._waiting:
                    return
                rows, self._dirty = self._dirty, {}
                waiting, self._waiting = self._waiting, []
                self._busy = True
            error = self._commit(rows)
            self._settle(waiting, error)
            with self._lock:
                self._busy = False
                if error is not None and not self._closing:
                    self._dirty = {**rows, **self._dirty}
                    self._lock.wait(RETRY_PAUSE_S)

    def _commit(self, rows: Mapping[tuple[str, str], _Row]) -> Exception | None:
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for (table, key), row in rows.items():
                    put, remove = _WRITES[table]
                    if row is None:
                        self._connection.execute(remove, (key,))
                    else:
                        self._connection.execute(put, (key, *_columns(row)))
        except sqlite3.Error as error:
            if self.failure is None:
                log.error("store_write_failed", error=str(error), rows=len(rows))
            self.failure = str(error)
            return error
        if self.failure is not None:
            log.info("store_write_recovered", rows=len(rows))
            self.failure = None
        self.commits += 1
        return None

    def _settle(self, waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
        def settle() -> None:
            for future in waiting:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(StoreUnavailable(f"the state file cannot be written: {error}"))

        if waiting and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)

    def _close(self) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.error("store_close_timed_out")
        else:
            self._connection.close()


def _open_file(path: Path) -> tuple[sqlite3.Connection, Stored]:
    existed = path.exists()
    if existed and not path.stat().st_size:
        log.error("store_was_empty", path=str(path), remedy="starting with an empty registry")
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(path)
        return connection, _load(connection)
    except (sqlite3.Error, ValueError, KeyError, TypeError, ConfigurationError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ConfigurationError):
            raise
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
            raise ConfigurationError(f"cannot use the state file {path}: {_remedy(error)}") from error
        aside = files.keep_aside(path)  # its log is gone by now: SQLite takes it away on closing
        log.error(
            "store_unreadable",
            path=str(path),
            error=str(error),
            kept_aside=str(aside),
            remedy="starting with an empty registry; services register again by themselves",
        )
    connection = _connect(path)
    return connection, _load(connection)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive: a second discovery on the same folder would undo the first one's writes without either noticing.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        path.chmod(0o600)
    except BaseException:
        connection.close()
        raise
    return connection


def _load(connection: sqlite3.Connection) -> Stored:
    with closing(connection.execute("PRAGMA quick_check(1)")) as rows:
        verdict = rows.fetchone()[0]
    if verdict != "ok":
        raise ValueError(f"the file is damaged: {verdict}")
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    if int(meta.get("schema", SCHEMA_VERSION)) > SCHEMA_VERSION:
        raise ConfigurationError("the state file was written by a newer version of Toska Mesh; use that one")
    stored = Stored(
        node_id=meta.get("node_id") or str(uuid.uuid4()),
        index=int(meta.get("index", 1)),
        instances=[read_instance(body) for (body,) in connection.execute("SELECT body FROM instances")],
        nodes={name: read_node(body) for name, body in connection.execute("SELECT name, body FROM nodes")},
        keys=[read_entry(*row) for row in connection.execute("SELECT name, body, value FROM keys")],
        sessions=[read_session(body) for (body,) in connection.execute("SELECT body FROM sessions")],
        queries=[read_query(body) for (body,) in connection.execute("SELECT body FROM queries")],
        delays=connection.execute("SELECT key, seconds FROM delays").fetchall(),
    )
    written = {
        "schema": str(SCHEMA_VERSION),
        "node_id": stored.node_id,
        "index": str(stored.index + INDEX_STRIDE),
    }
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_WRITES["meta"][0], written.items())
    return stored


def _is_damage(error: sqlite3.OperationalError) -> bool:
    code = error.sqlite_errorcode
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,  # a table that is not ours
    }


def _remedy(error: sqlite3.OperationalError) -> str:
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
        return "another discovery uses it; stop that one, or set TOSKA_HOME to a folder of its own"
    return f"{error}; set TOSKA_HOME to a folder that can be written"


def _columns(row: Instance | Node | Entry | Session | PreparedQuery | float | str) -> tuple[str | bytes | float, ...]:
    if isinstance(row, Instance):
        return (instance_column(row),)
    if isinstance(row, PreparedQuery):
        return (query_column(row),)
    if isinstance(row, Session):
        return (session_column(row),)
    if isinstance(row, Node):
        return (node_column(row),)
    return entry_columns(row) if isinstance(row, Entry) else (row,)

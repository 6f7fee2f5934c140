"""The connections that DBOS works on: the same database as ours, over drivers that block."""

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from toska_common.database import DatabaseLocation
from toska_common.database.turns import connect_in_turn

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
    "PRAGMA cache_size=-512",
)
_OPTIONS = "-c idle_in_transaction_session_timeout=10s -c lock_timeout=10s"


class JournalDatabase:
    """An engine that has connected to nothing yet; the file or the schema is there already."""

    def __init__(self, location: DatabaseLocation) -> None:
        self._closed = threading.Event()
        self.engine = self._sqlite(location.file) if location.file is not None else self._postgresql(location)
        event.listen(self.engine, "checkout", self._refuse_if_closed)

    def close(self) -> None:
        """Give out no connection any more: whoever wants one gets an error that is none of the database's.

        DBOS tries again for ever whatever goes wrong with a connection.
        """
        self._closed.set()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _refuse_if_closed(self, *_: object) -> None:
        if self._closed.is_set():
            raise RuntimeError("sagas are closed")

    def _sqlite(self, file: Path) -> sa.Engine:
        def connect() -> Any:
            self._refuse_if_closed()
            # As DBOS has it for engines of its own: a transaction that writes takes the lock at its first statement.
            connection = connect_in_turn(file)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            return connection

        return sa.create_engine(
            "sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=2, max_overflow=2, pool_timeout=30
        )

    def _postgresql(self, location: DatabaseLocation) -> sa.Engine:
        psycopg: Any = import_module("psycopg")

        def connect() -> Any:
            self._refuse_if_closed()
            # The driver reads the URL itself, so that sslmode, several hosts and the rest of libpq's words mean what
            # they say; and the engine, which DBOS shows in its lines, holds no password.
            name = f"toska-{location.service}"
            return psycopg.connect(location.dsn, application_name=name, connect_timeout=3, options=_OPTIONS)

        return sa.create_engine(
            "postgresql+psycopg://", creator=connect, pool_size=2, max_overflow=2, pool_timeout=30, pool_pre_ping=True
        )

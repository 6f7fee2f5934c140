"""The connections that DBOS works on: the same database as ours, over drivers that block."""

from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from toska_common.database import DatabaseLocation

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
    "PRAGMA cache_size=-512",
)
_OPTIONS = "-c idle_in_transaction_session_timeout=10s -c lock_timeout=10s"


def create_journal_engine(location: DatabaseLocation) -> sa.Engine:
    """An engine that has connected to nothing yet; the file or the schema is there already."""
    if location.file is None:
        return _postgresql(location)
    engine = sa.create_engine(f"sqlite:///{location.file}", pool_size=2, max_overflow=2, pool_timeout=30)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        # As DBOS does it for engines of its own: a transaction that writes takes the lock at its first statement.
        connection.isolation_level = "IMMEDIATE"
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    return engine


def close_journal_engine(engine: sa.Engine) -> None:
    """Give out no connection any more: whoever wants one gets an error that is none of the database's.

    DBOS tries again for ever whatever goes wrong with a connection.
    """

    @event.listens_for(engine, "do_connect")
    def refuse(*_: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        raise RuntimeError("sagas are closed")

    @event.listens_for(engine, "checkout")
    def refuse_kept(*_: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        raise RuntimeError("sagas are closed")


def _postgresql(location: DatabaseLocation) -> sa.Engine:
    psycopg: Any = import_module("psycopg")

    def connect() -> Any:
        # The driver reads the URL itself, so that sslmode, several hosts and the rest of libpq's words mean what they
        # say; and the engine, which DBOS shows in its lines, holds no password.
        name = f"toska-{location.service}"
        return psycopg.connect(location.dsn, application_name=name, connect_timeout=3, options=_OPTIONS)

    return sa.create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=2, max_overflow=2, pool_timeout=30, pool_pre_ping=True
    )

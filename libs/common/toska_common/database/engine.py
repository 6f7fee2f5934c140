"""Engines of SQLAlchemy, set up for what the mesh wants of a database: durable, and never waiting without an end."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from toska_common.database.errors import DatabaseUnavailable
from toska_common.database.location import DatabaseLocation
from toska_common.database.sqlite_driver import connect_sqlite
from toska_common.errors import ConfigurationError

CONNECT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = 4.0
BUSY_TIMEOUT_S = 4.0
_MOST_CONNECTIONS = 4
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA cache_size=-512",
)
_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_FAULTS_OF_OURS = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
_OF_DATA = "22"
"""The class of PostgreSQL's errors about a value, such as a text with a NUL; asyncpg's are no `DataError`."""


def create_engine(location: DatabaseLocation, *, kept: int = 1) -> AsyncEngine:
    """An engine that has connected to nothing yet.

    Args:
        location: The database.
        kept: Connections to PostgreSQL that stay open once they were needed; making one takes longer than its use.
    """
    return _sqlite(location.file) if location.file is not None else _postgresql(location, kept)


def _sqlite(file: Path) -> AsyncEngine:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite would make it by the umask
    # One connection is kept, since each has a thread; a second one is opened for as long as it is needed.
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        async_creator=lambda: connect_sqlite(file, busy_s=BUSY_TIMEOUT_S),
        pool_size=1,
        max_overflow=_MOST_CONNECTIONS - 1,
        pool_timeout=5,
    )
    prepare_sqlite(engine.sync_engine)
    return engine


def prepare_sqlite(engine: sa.Engine) -> None:
    """Have each of its connections durable, and each transaction begin as its options say (`toska_begin`)."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    # The driver begins no transactions.
    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        connection.exec_driver_sql(connection.get_execution_options().get("toska_begin", "BEGIN"))


def _postgresql(location: DatabaseLocation, kept: int) -> AsyncEngine:
    # The driver reads the URL itself, so that sslmode, several hosts and the rest of libpq's words mean what they say.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_postgresql(location),
        pool_size=kept,
        max_overflow=_MOST_CONNECTIONS - kept,
        pool_timeout=5,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, *_: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        # The driver sees by itself that a server is gone. SQLAlchemy's ping is a transaction: three of the eight times
        # that a transaction of ours goes there and back.
        if connection.driver_connection.is_closed():
            raise exc.InvalidatePoolError

    return engine


async def connect_postgresql(location: DatabaseLocation) -> Any:
    """A connection of asyncpg, whose unqualified names are those of the service's schema."""
    asyncpg: Any = import_module("asyncpg")  # it is typed in part, and wrongly
    settings = {
        "application_name": f"toska-{location.service}",
        "search_path": location.schema,
        # Whoever stalls in the middle of a change must not keep everybody else from changing.
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "3s",
    }
    return await asyncpg.connect(
        location.dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings
    )


@contextmanager
def translated(location: DatabaseLocation) -> Generator[None]:
    """Turn what a database's absence raises into `DatabaseUnavailable`; mistakes in our statements stay what they are.

    Raises:
        ConfigurationError: SQLite's file is damaged.
        DatabaseUnavailable: It cannot be reached or written.
    """
    try:
        yield
    except _FAULTS_OF_OURS:
        raise
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlite_errorname", "") in _DAMAGED:
            raise ConfigurationError(
                f"{location}: {error.orig}; put a copy of it in its place, or move it away to start without what it had"
            ) from error
        if str(getattr(error.orig, "sqlstate", "")).startswith(_OF_DATA):
            raise
        raise _unavailable(location, error.orig or error) from error
    except (exc.TimeoutError, OSError, TimeoutError) as error:
        raise _unavailable(location, error) from error
    except Exception as error:
        if type(error).__module__.startswith("asyncpg."):  # raised while connecting, where SQLAlchemy wraps nothing
            raise _unavailable(location, error) from error
        raise


def _unavailable(location: DatabaseLocation, error: BaseException) -> DatabaseUnavailable:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return DatabaseUnavailable(f"{location}: {reason}")

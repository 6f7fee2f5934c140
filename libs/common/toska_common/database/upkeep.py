"""Tables brought up to date, and the lock and the signal of changes.

A database without tables gets them as they are now and needs no Alembic, which takes 13 MiB. One with tables of an
older release is migrated, step by step. Either happens in one transaction under the lock of all that write: whatever
goes wrong leaves what was there, and of several that start at once one does it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from toska_common.database.location import DatabaseLocation
from toska_common.errors import ConfigurationError

log = structlog.get_logger(__name__)

VERSION_TABLE = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True, nullable=False)
)
"""Alembic's own, as it makes it."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a service: as they are now, the name of that state, and the steps that lead there."""

    head: str
    metadata: sa.MetaData
    folder: Path


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What became of a database's tables: their version before (`None` if there were none) and after."""

    before: str | None
    after: str


async def exclude_others(connection: AsyncConnection, location: DatabaseLocation) -> None:
    """Wait until no other transaction writes; SQLite's `BEGIN IMMEDIATE` has done so already."""
    if location.file is None:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(location))))


async def announce(connection: AsyncConnection, location: DatabaseLocation) -> None:
    """Tell whoever listens, once the transaction is committed; SQLite's file shows it by itself."""
    if location.file is None:
        await connection.execute(sa.select(sa.func.pg_notify(location.schema, "")))


def lock_key(location: DatabaseLocation) -> int:
    """The lock of PostgreSQL that all who write take."""
    digest = hashlib.sha256(f"toska.database.{location.schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def make_schema(connection: AsyncConnection, location: DatabaseLocation) -> None:
    """Make PostgreSQL's schema, if it is not there.

    Raises:
        ConfigurationError: We may not.
    """
    if location.file is not None:
        return
    # PostgreSQL asks for the right to make one even where IF NOT EXISTS would make none.
    found = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
    if await connection.scalar(found, {"name": location.schema}) is None:
        try:
            await connection.execute(sa.schema.CreateSchema(location.schema))
        except ProgrammingError as error:
            raise ConfigurationError(
                f"{location}: {error.orig}; grant CREATE on the database, or make the schema beforehand"
            ) from error


def read_version(connection: sa.Connection) -> str | None:
    """The version of the tables that are there; `None` if there are none."""
    known = VERSION_TABLE.name in sa.inspect(connection).get_table_names()
    return connection.scalar(sa.select(VERSION_TABLE.c.version_num)) if known else None


def bring_up_to_date(connection: sa.Connection, location: DatabaseLocation, schema: Schema) -> Upgrade:
    """Make the tables, or migrate those that are there.

    Raises:
        ConfigurationError: They are those of another release, or we may not change any.
    """
    version = read_version(connection)
    if version != schema.head:
        try:
            _change(connection, location, schema, version)
        except ProgrammingError as error:
            if "permission denied" not in str(error.orig):
                raise
            raise ConfigurationError(
                f"{location}: {error.orig}; have somebody run the migration who may change tables "
                f"(`python -m toska_{location.service} migrate`)"
            ) from error
    return Upgrade(version, schema.head)


def _change(connection: sa.Connection, location: DatabaseLocation, schema: Schema, version: str | None) -> None:
    if version is None:
        VERSION_TABLE.create(connection, checkfirst=True)
        schema.metadata.create_all(connection, checkfirst=False)
        connection.execute(VERSION_TABLE.insert().values(version_num=schema.head))
        log.info("tables_made", database=str(location), version=schema.head)
    else:
        from toska_common.database.migrating import migrate

        migrate(connection, location, schema.folder, version)
        log.info("tables_migrated", database=str(location), before=version, version=schema.head)

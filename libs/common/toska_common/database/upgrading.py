"""Migrating a service's database by a command, without starting the service: `python -m toska_router migrate`.

Services bring their tables up to date when they start. The command is for whoever wants that done at another time, by
another user of the database, or by hand (`--sql`).
"""

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module

from sqlalchemy.schema import CreateSchema

from toska_common.database.engine import create_engine, translated
from toska_common.database.location import DatabaseLocation
from toska_common.database.migrating import list_steps, write_sql
from toska_common.database.opened import OpenDatabase, read_schema
from toska_common.database.upkeep import Upgrade, lock_key, read_version


async def run_migrate(location: DatabaseLocation, migrations: str, arguments: Sequence[str]) -> str:
    """Do what the command's arguments ask for; returns what there is to say.

    Raises:
        ConfigurationError: The tables are those of another release, or we may not change them; nothing was changed.
        DatabaseUnavailable: The database does not answer; nothing was changed.
        SystemExit: The arguments are wrong, or ask for help.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m toska_{location.service} migrate", description="Bring the database to the newest version."
    )
    parser.add_argument("--sql", action="store_true", help="print the statements, and change nothing")
    return await (_sql(location, migrations) if parser.parse_args(arguments).sql else _migrate(location, migrations))


async def _migrate(location: DatabaseLocation, migrations: str) -> str:
    schema = read_schema(import_module(migrations))
    opened = await OpenDatabase.open(location, schema)
    await opened.aclose()
    done = opened.upgrade or Upgrade(schema.head, schema.head)
    if done.before == done.after:
        return f"{location} is at {done.after}, the newest version: nothing to do\n"
    words = f"tables made, at {done.after}" if done.before is None else f"migrated from {done.before} to {done.after}"
    steps = list_steps(location, schema.folder, done.before) if done.before is not None else []
    return "".join([f"{location}: {words}\n", *(f"  {step.version}  {step.title}\n" for step in steps)])


async def _sql(location: DatabaseLocation, migrations: str) -> str:
    schema = read_schema(import_module(migrations))
    version = await _find_version(location)
    if version == schema.head:
        return f"-- {location} is at {version}, the newest version: nothing to do\n"
    statements = write_sql(location, schema.folder, version)
    head = f"-- {location}: from {version or 'nothing'} to {schema.head}\n"
    return head + "".join(_begin(location)) + "\n" + statements + "COMMIT;\n"


def _begin(location: DatabaseLocation) -> Iterator[str]:
    """Exclude whoever writes, as the services do."""
    if location.file is not None:
        yield "BEGIN IMMEDIATE;\n"
        return
    yield "BEGIN;\n"
    yield f"SELECT pg_advisory_xact_lock({lock_key(location)});\n"
    yield f"{CreateSchema(location.schema, if_not_exists=True)};\n"
    yield f"SET LOCAL search_path TO {location.schema};\n"


async def _find_version(location: DatabaseLocation) -> str | None:
    if location.file is not None and not location.file.exists():
        return None
    engine = create_engine(location)
    try:
        with translated(location):
            async with engine.connect() as connection:
                return await connection.run_sync(read_version)
    finally:
        await engine.dispose()

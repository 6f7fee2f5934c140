"""Alembic, without its command line: the only module that loads it, and only where a migration is due."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from toska_common.database.location import DatabaseLocation
from toska_common.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: the version that it leads to, and what it brings."""

    version: str
    title: str


def migrate(connection: sa.Connection, location: DatabaseLocation, folder: Path, version: str) -> None:
    """Bring tables from `version` to the newest, in the transaction that `connection` is in.

    Raises:
        ConfigurationError: `version` is not one of those in `folder`.
    """
    script = scripts(folder)
    _require_known(script, location, version)
    with EnvironmentContext(Config(), script, fn=_upgrade(script)) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def list_steps(location: DatabaseLocation, folder: Path, version: str | None) -> list[Step]:
    """What leads from `version` to the newest, in its order; from nothing if it is `None`.

    Raises:
        ConfigurationError: `version` is not one of those in `folder`.
    """
    script = scripts(folder)
    if version is not None:
        _require_known(script, location, version)
    found = script.iterate_revisions("head", version or "base")
    return [Step(one.revision, one.doc) for one in reversed([*found])]


def write_sql(location: DatabaseLocation, folder: Path, version: str | None) -> str:
    """The statements that lead from `version` to the newest, as they would be run, without a transaction around them.

    Raises:
        ConfigurationError: `version` is not one of those in `folder`.
    """
    script = scripts(folder)
    if version is not None:
        _require_known(script, location, version)
    text = StringIO()
    start = version or "base"
    with EnvironmentContext(Config(), script, fn=_upgrade(script), as_sql=True, starting_rev=start) as environment:
        environment.configure(dialect_name="postgresql" if location.file is None else "sqlite", output_buffer=text)
        environment.run_migrations()
    return text.getvalue()


def _upgrade(script: ScriptDirectory) -> Any:
    def steps(revision: Any, _context: object) -> Any:
        return script._upgrade_revs("head", revision)  # pyright: ignore[reportPrivateUsage] - as Alembic's own command does

    return steps


def _require_known(script: ScriptDirectory, location: DatabaseLocation, version: str) -> None:
    try:
        script.get_revision(version)
    except CommandError as error:
        raise ConfigurationError(
            f"{location} has the tables of another release ({version}); run the release that made them, or a newer one"
        ) from error


def scripts(folder: Path) -> ScriptDirectory:
    """The migrations in the package at `folder`."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)

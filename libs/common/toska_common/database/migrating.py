"""Alembic, without its command line: the only module that loads it, and only where a migration is due."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from toska_common.database.location import DatabaseLocation
from toska_common.errors import ConfigurationError


def migrate(connection: sa.Connection, location: DatabaseLocation, folder: Path, version: str) -> None:
    """Bring tables from `version` to the newest, in the transaction that `connection` is in.

    Raises:
        ConfigurationError: `version` is not one of those in `folder`.
    """
    script = scripts(folder)
    try:
        script.get_revision(version)
    except CommandError as error:
        raise ConfigurationError(
            f"{location} has the tables of another release ({version}); run the release that made them, or a newer one"
        ) from error

    def steps(revision: Any, _context: object) -> Any:
        return script._upgrade_revs("head", revision)  # pyright: ignore[reportPrivateUsage] - as Alembic's own command does

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def scripts(folder: Path) -> ScriptDirectory:
    """The migrations in the package at `folder`."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)

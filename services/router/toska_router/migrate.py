"""`python -m toska_router migrate`: the router's database brought to the newest version, without a router."""

import sys
from collections.abc import Sequence

import anyio
from toska_common.database import DatabaseUnavailable
from toska_common.errors import ConfigurationError
from toska_common.logging import configure_logging
from toska_common.settings import prepare_home

from toska_router.settings import Settings
from toska_router.store import MIGRATIONS


def migrate(arguments: Sequence[str] = ()) -> int:
    """Migrate, or print the statements of it (`--sql`).

    Returns:
        The process's exit code: 1 if the database does not answer, 2 if a setting is wrong or its tables are those of
        another release.
    """
    from toska_common.database.upgrading import run_migrate  # it loads SQLAlchemy and Alembic

    try:
        settings = Settings.from_environment()
        if settings.database_location.file is not None:
            settings = settings.model_copy(update={"home": prepare_home(settings.home)})
        configure_logging(level="error", format="text", service="router")
        said = anyio.run(run_migrate, settings.database_location, MIGRATIONS, arguments)
    except (ConfigurationError, DatabaseUnavailable) as error:
        sys.stderr.write(f"toska-router: {error.detail}\n")
        return 2 if isinstance(error, ConfigurationError) else 1
    sys.stdout.write(said)
    return 0

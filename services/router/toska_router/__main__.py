"""`python -m toska_router`: the router as a process of its own; with `migrate`, its database is brought up to date."""

import sys
from collections.abc import Sequence

import anyio
from toska_common.errors import ConfigurationError
from toska_common.logging import configure_logging
from toska_common.server import run_process
from toska_common.settings import prepare_home

from toska_router.app import create_service
from toska_router.settings import Settings


def main(arguments: Sequence[str] = ()) -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        The process's exit code: 2 if a setting, the routing file, a port or an argument is wrong.
    """
    if not arguments:
        return _run()
    if arguments[0] == "migrate":
        from toska_router.migrate import migrate  # it brings what only migrations need

        return migrate(arguments[1:])
    sys.stderr.write(f"toska-router: {arguments[0]!r} is nothing to do: say nothing, or migrate [--sql]\n")
    return 2


def _run() -> int:
    try:
        settings = Settings.from_environment()
        settings = settings.model_copy(update={"home": prepare_home(settings.home)})
        configure_logging(level=settings.log_level, format=settings.log_format, service="router", home=settings.home)
        service = create_service(settings)
        anyio.run(run_process, service, backend_options={"use_uvloop": True})
    except ConfigurationError as error:
        sys.stderr.write(f"toska-router: {error.detail}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

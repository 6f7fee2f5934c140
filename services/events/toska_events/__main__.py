"""`python -m toska_events`: the events service as a process of its own."""

import sys

import anyio
from toska_common.errors import ConfigurationError
from toska_common.logging import configure_logging
from toska_common.server import run_process
from toska_common.settings import prepare_home

from toska_events.app import create_service
from toska_events.settings import Settings


def main() -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        The process's exit code: 2 if a setting, the event log or a port is wrong.
    """
    try:
        settings = Settings.from_environment()
        settings = settings.model_copy(update={"home": prepare_home(settings.home)})
        configure_logging(level=settings.log_level, format=settings.log_format, service="events", home=settings.home)
        service = create_service(settings)
        anyio.run(run_process, service, backend_options={"use_uvloop": True})
    except ConfigurationError as error:
        sys.stderr.write(f"toska-events: {error.detail}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

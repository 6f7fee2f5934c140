"""`python -m toska_discovery`: discovery as a process of its own."""

import contextlib
import resource
import sys

import anyio
from toska_common.errors import ConfigurationError
from toska_common.logging import configure_logging
from toska_common.server import run_process
from toska_common.settings import prepare_home

from toska_discovery.app import create_service
from toska_discovery.settings import Settings


def main() -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        The process's exit code: 2 if a setting, the home or a port is wrong.
    """
    try:
        settings = Settings.from_environment()
        settings = settings.model_copy(update={"home": prepare_home(settings.home)})
        configure_logging(level=settings.log_level, format=settings.log_format, service="discovery", home=settings.home)
        _raise_file_limit()
        service = create_service(settings)
        anyio.run(run_process, service, backend_options={"use_uvloop": True})
    except ConfigurationError as error:
        sys.stderr.write(f"toska-discovery: {error.detail}\n")
        return 2
    return 0


def _raise_file_limit() -> None:
    # Every blocked query is an open connection. macOS refuses its own "unlimited".
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())

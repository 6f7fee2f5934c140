"""`toska run` and `toska gateway`: one process of the mesh, or a user's app, in the foreground."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toska_common.errors import ConfigurationError

if TYPE_CHECKING:
    from toska_gateway.listeners import ListenerAddress

SERVICES = ("discovery", "events", "router", "gateway")
WITH_DATABASES = ("router",)


def run_target(target: str, host: str, port: int) -> None:
    """Run one of our services, or the app `module:attribute` of the working directory.

    Raises:
        ConfigurationError: There is no such service or app, or a setting is wrong.
    """
    if target in SERVICES:
        sys.exit(importlib.import_module(f"toska_{target}.__main__").main())
    elif ":" in target:
        _run_app(target, host, port)
    else:
        raise ConfigurationError(
            f"there is no service {target!r}: say one of {', '.join(SERVICES)}, or module:app for an app of yours"
        )


def migrate(*, sql: bool, home: Path | None) -> int:
    """Bring the databases of all services that have one to their newest version; the exit code is the worst one's."""
    if home is not None:
        os.environ["TOSKA_HOME"] = str(home)
    modules = [importlib.import_module(f"toska_{service}.migrate") for service in WITH_DATABASES]
    return max(module.migrate(["--sql"] if sql else []) for module in modules)


def run_gateway(
    routes: Path, listen: Sequence[str], admin: str, workers: int | None, home: Path | None, engine: str | None
) -> None:
    """Run the gateway by a routing file.

    Raises:
        ConfigurationError: The file, an address or a setting is wrong.
    """
    import anyio
    from toska_common.logging import configure_logging
    from toska_common.server import run_process
    from toska_common.settings import prepare_home
    from toska_gateway.app import create_service
    from toska_gateway.settings import Settings

    from toska_cli.up import raise_file_limit

    admin_host, admin_port = _address("--admin", admin)
    listeners = tuple(_listener(value) for value in listen)
    overrides: dict[str, Any] = {"workers": workers, "home": home, "engine": engine}
    settings = Settings.from_environment(
        routes=routes,
        listen=listeners,
        admin_host=admin_host,
        admin_port=admin_port,
        **{name: value for name, value in overrides.items() if value is not None},
    )
    settings = settings.model_copy(update={"home": prepare_home(settings.home)})
    configure_logging(level=settings.log_level, format=settings.log_format, service="gateway", home=settings.home)
    raise_file_limit()
    anyio.run(run_process, create_service(settings), backend_options={"use_uvloop": True})


def _run_app(target: str, host: str, port: int) -> None:
    import uvicorn
    from toska_common.logging import configure_logging

    from toska_cli.serving import import_app

    folder = Path.cwd()
    # For processes that the app starts itself: they import from here too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    configure_logging(service=target.partition(":")[0])
    uvicorn.run(import_app(target, folder), host=host, port=port, log_config=None)


def _listener(value: str) -> "ListenerAddress":
    from toska_gateway.listeners import parse_listener

    try:
        return parse_listener(value)
    except ValueError as error:
        raise ConfigurationError(f"--listen: {error}") from error


def _address(option: str, value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{option} {value}: write host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)

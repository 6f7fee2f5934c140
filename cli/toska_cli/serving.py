"""Serving a user's ASGI app: what `toska run module:app` and the example services share."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from starlette.types import Receive, Scope, Send
from toska_common.errors import ConfigurationError

from toska_cli.children import ChildSpec
from toska_cli.importing import quick_imports

_IMPORTED_LATE = (
    *("fastapi", "pydantic.v1", "aiohttp", "toska_common.mesh", "uvloop", "anyio._backends._asyncio"),
    *("concurrent.futures.thread", "encodings.idna", "ctypes"),
)
"""What is imported here is imported once for all: children that import it each for itself take 5 MiB more each.

FastAPI imports pydantic.v1 at the first route, and the SDK aiohttp when it first speaks with the registry.
"""


def import_app(target: str, folder: Path) -> Any:
    """Import `module:attribute` as from `folder`.

    Raises:
        ConfigurationError: It is not there; says which part.
    """
    from uvicorn.importer import ImportFromStringError, import_from_string

    sys.path.insert(0, str(folder))
    try:
        return import_from_string(target)
    except ImportFromStringError as error:
        raise ConfigurationError(f"cannot run {target!r} from {folder}: {error}") from error


def import_for_serving() -> None:
    """Import what every app of a mesh needs to be served, and the host as well."""
    import uvicorn

    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    # Loading a configuration imports the server's loop, HTTP, WebSocket and lifespan parts, whatever their names are.
    uvicorn.Config(_nothing, log_config=None).load()


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An app that is never called."""


def run_child(spec: ChildSpec) -> NoReturn:
    """Become the instance that `spec` describes: this process serves it until it is signalled."""
    import uvicorn
    from toska_common.logging import configure_logging

    home = Path(spec.home)
    os.environ.update(spec.environment)
    os.chdir(spec.folder)
    _redirect_output(home / "logs" / f"{spec.service}.log")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        configure_logging(level="info", format="json", service=spec.service, home=home, stream=nowhere)
        with quick_imports():
            app = import_app(spec.app, Path(spec.folder))
        config = uvicorn.Config(app, host=spec.host, port=spec.port, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.run()
    os._exit(0 if server.started else 1)


def _redirect_output(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)

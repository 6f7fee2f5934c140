"""Listening on the socket, and looking after those who are connected."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import structlog
from toska_common.credentials import Credentials
from toska_common.errors import ConfigurationError
from toska_common.events.embedded.paths import socket_address

from toska_events.administration import Administrator
from toska_events.brokering.broker import Broker
from toska_events.serving.connection import Connection, Served

log = structlog.get_logger(__name__)

GREETING_WITHIN_S = 5.0
LOOK_EVERY_S = 1.0
PING_EVERY_S = 10.0
_GOODBYE_WITHIN_S = 0.5
SILENT_FOR_S = 45.0
"""After this a client is taken for dead; a healthy one answers a ping within milliseconds."""


@asynccontextmanager
async def serve_socket(
    path: Path, broker: Broker, administrator: Administrator, credentials: Credentials, max_event_bytes: int
) -> AsyncGenerator[Served]:
    """Serve the log at `path` while the block lasts; whoever owns the log may take the path over.

    Raises:
        ConfigurationError: The path cannot be listened on.
    """
    async with anyio.create_task_group() as tasks:
        served = Served(broker, administrator, credentials, max_event_bytes, tasks)
        server = await _listen(path, served)
        try:
            tasks.start_soon(_look_after, served)
            yield served
        finally:
            server.close()
            with contextlib.suppress(OSError):
                path.unlink()  # noqa: ASYNC240 - of a folder of this machine, once
            for connection in list(served.connections):
                connection.say_goodbye("the event log is closing", closing=True)
            with anyio.move_on_after(_GOODBYE_WITHIN_S, shield=True):
                await served.all_gone()
            for connection in list(served.connections):
                connection.abort()
            tasks.cancel_scope.cancel()


async def _listen(path: Path, served: Served) -> asyncio.Server:
    draft = path.with_name(f".{path.name}")
    try:
        for old in (draft, path):
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
        with socket_address(draft) as address:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: Connection(served), address, backlog=1024
            )
        # Bound under another name: under its own it is never there with more rights than its owner's.
        draft.chmod(0o600)
        draft.rename(path)
    except OSError as error:
        raise ConfigurationError(f"cannot serve the event log at {path}: {error.strerror or error}") from error
    return server


async def _look_after(served: Served) -> None:
    clock = served.broker.clock
    last_ping = clock.monotonic()
    while True:
        await anyio.sleep(LOOK_EVERY_S)
        now = clock.monotonic()
        ping = now - last_ping >= PING_EVERY_S
        if ping:
            last_ping = now
        for connection in list(served.connections):
            silent = now - connection.heard_at
            if connection.access is None and silent > GREETING_WITHIN_S:
                connection.abort()
            elif silent > SILENT_FOR_S:
                log.warning("events_client_silent", client=connection.service, silent_for_s=round(silent))
                connection.abort()
            elif ping:
                connection.ping()

"""Opening the log of a home and serving it: lock, file, threads, groups and socket, in this order."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from toska_common.clock import Clock
from toska_common.events.embedded.paths import socket_path

from toska_events.administration import Administrator
from toska_events.brokering.broker import Broker
from toska_events.log.file import LogFile
from toska_events.log.reading import LogReading
from toska_events.log.schema import FILE_NAME, locked
from toska_events.log.threads import LogReader, LogWriter
from toska_events.retention import Retention
from toska_events.serving.connection import Served
from toska_events.serving.server import serve_socket
from toska_events.settings import Settings

_CLOSE_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class HostedLog:
    """A log that is open and served."""

    broker: Broker
    administrator: Administrator
    retention: Retention
    served: Served


@asynccontextmanager
async def host_log(
    settings: Settings, clock: Clock, on_crash: Callable[[Exception], None]
) -> AsyncGenerator[HostedLog]:
    """Own the log of the home that the settings name, and serve it, while the block lasts.

    Args:
        on_crash: Told if the log cannot go on; the file is to be opened anew then.

    Raises:
        ConfigurationError: The log is open elsewhere, broken, or cannot be used.
    """
    folder = socket_path(settings.home).parent
    with locked(folder):
        path = folder / FILE_NAME
        file = await asyncio.to_thread(
            LogFile.open, path, fsync_commits=settings.fsync == "full", max_bytes=settings.max_bytes
        )
        writer = LogWriter(file, clock, on_crash)
        reader = LogReader(lambda: LogReading(path))
        broker = Broker(file, writer, reader, clock)
        try:
            await broker.open()
            administrator = Administrator(broker)
            async with serve_socket(
                socket_path(settings.home), broker, administrator, settings.credentials(), settings.max_event_bytes
            ) as served:
                yield HostedLog(broker, administrator, Retention(broker, settings.max_age), served)
        finally:
            # Whatever ends this, what groups have settled is stored; a disk that hangs keeps nobody for ever.
            with anyio.move_on_after(_CLOSE_WITHIN_S, shield=True):
                await broker.close()
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(_close, writer, reader, file)


def _close(writer: LogWriter, reader: LogReader, file: LogFile) -> None:
    writer.close()
    reader.close()
    file.close()

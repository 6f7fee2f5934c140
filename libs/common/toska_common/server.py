"""Running a service: its listeners on sockets that somebody else owns, and the right order of start and stop.

Start: open the parts, warm, listen, then announce. Stop: fail readiness, take the announcement back, wait the drain
delay, close the listeners, finish what is in flight, close the parts. uvicorn alone cannot do it: it runs lifespan
startup before it binds and lifespan shutdown after it has closed.

A `Service` is what each service package builds (`toska_<name>.app.create_service`); `serve` runs one in the current
event loop, whoever owns the process: `run_process` for a service of its own, or the all-in-one host of `toska up`.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import anyio
import structlog
import uvicorn
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.types import ASGIApp

from toska_common.collector import keep_collector_calm
from toska_common.errors import ConfigurationError, MeshError

log = structlog.get_logger(__name__)

GRACE = timedelta(seconds=1)
"""How long requests in flight may take to finish once the listeners are closed."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address of a service and the app that answers there, over a uvicorn protocol of its own if it has one."""

    name: str
    host: str
    port: int
    app: ASGIApp
    protocol: type[asyncio.Protocol] | None = None


@asynccontextmanager
async def _nothing() -> AsyncGenerator[None]:
    yield


async def _announce_nothing() -> None:
    return


@dataclass(slots=True)
class Service:
    """A service, ready to be run.

    Attributes:
        name: Its short name, such as `discovery`; registered in the mesh as `toska-discovery`.
        listeners: Where it answers; each bound before `lifespan` is entered.
        lifespan: Opens what the apps need, and closes it; entered before a listener accepts.
        announce: Called once all listeners accept, e.g. to register; its counterpart is `withdraw`.
        withdraw: Called when stopping, before anything closes.
        ready: Flipped by `serve`; readiness checks read it.
        on_hangup: What SIGHUP means to a service that runs as a process of its own, once it is open.
        on_crash: Set by `serve` before it enters `lifespan`: a background task that dies calls it, and the service
            stops with that error.
    """

    name: str
    listeners: Sequence[Listener]
    lifespan: Callable[[], AbstractAsyncContextManager[None]] = _nothing
    announce: Callable[[], Awaitable[None]] = _announce_nothing
    withdraw: Callable[[], Awaitable[None]] = _announce_nothing
    drain_delay: timedelta = timedelta()
    on_hangup: Callable[[], Awaitable[None]] | None = None
    ready: bool = False
    on_crash: Callable[[Exception], None] = field(default=lambda _error: None)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's owner has those."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening TCP socket; port 0 takes a free one.

    Raises:
        ConfigurationError: The address is taken or not ours; says which and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it, or choose other ports",
            host=host,
            port=port,
        ) from error
    return sock


async def serve(
    service: Service,
    sockets: Mapping[str, socket.socket],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run `service` on its sockets (by listener name) until cancelled, or until a part of it crashes.

    Being cancelled begins the stop, and this returns once everything is closed in its order; until then background
    tasks of the lifespan go on. The sockets stay open and belong to the caller, so a restart loses no queued
    connection.

    Raises:
        Exception: What made a background task or a listener fail.
    """
    structlog.contextvars.bind_contextvars(service=service.name)
    life = _Life(service, sockets)
    async with anyio.create_task_group() as group:
        group.start_soon(life.run)
        try:
            await life.settled.wait()
            if life.running:
                task_status.started()
            await life.ended.wait()
        finally:
            life.stop()
    if life.errors:
        raise life.errors[0]


class _Life:
    """One run of a service, in a task that a cancellation from outside does not reach: it is stopped in order.

    opening --stop--> given up          running --stop, crash--> withdrawn -> listeners closed -> lifespan closed
    """

    def __init__(self, service: Service, sockets: Mapping[str, socket.socket]) -> None:
        self._service = service
        self._sockets = sockets
        self._opening = anyio.CancelScope()
        self._stopping = anyio.Event()
        self.settled = anyio.Event()
        self.ended = anyio.Event()
        self.running = False
        self.errors: list[Exception] = []

    def stop(self) -> None:
        """Begin to stop; what is still being opened is given up."""
        if self.running:
            self._stopping.set()
        else:
            self._opening.cancel()

    def crash(self, error: Exception) -> None:
        """Begin to stop because a part failed."""
        self.errors.append(error)
        self.stop()

    async def run(self) -> None:
        """Live until stopped, and keep the errors."""
        with anyio.CancelScope(shield=True):
            try:
                with self._opening:
                    await self._live()
            except Exception as error:
                if not self.errors and self._stopping.is_set():
                    log.exception("service_failed_to_stop")
                self.errors.append(error)
            finally:
                self.settled.set()
                self.ended.set()

    async def _live(self) -> None:
        service = self._service
        service.on_crash = self.crash
        async with service.lifespan():
            servers = [_build_server(listener) for listener in service.listeners]
            async with anyio.create_task_group() as group:
                try:
                    for listener, server in zip(service.listeners, servers, strict=True):
                        group.start_soon(_run_listener, server, self._sockets[listener.name].dup(), self.crash)
                    await _until_started(servers)
                    service.ready = True
                    await service.announce()
                    self.running = True
                    self.settled.set()
                    log.info(
                        "service_started",
                        listeners={item.name: f"{item.host}:{item.port}" for item in service.listeners},
                    )
                    await self._stopping.wait()
                finally:
                    service.ready = False
                    with anyio.CancelScope(shield=True):
                        await _stop(service, servers)
                        group.cancel_scope.cancel()


def _build_server(listener: Listener) -> _Server:
    config = uvicorn.Config(
        listener.app,
        http=listener.protocol or "httptools",
        ws="auto",
        lifespan="off",
        log_config=None,
        log_level="warning",  # we tell of starts and stops ourselves
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(GRACE.total_seconds()),
    )
    return _Server(config)


async def _run_listener(server: _Server, sock: socket.socket, crash: Callable[[Exception], None]) -> None:
    # Shielded: uvicorn ends by its own flag, so that requests in flight finish; being cancelled would cut them.
    with anyio.CancelScope(shield=True):
        try:
            await server.serve(sockets=[sock])
        except Exception as error:
            log.exception("listener_crashed")
            crash(error)
        finally:
            sock.close()


async def _until_started(servers: Sequence[_Server]) -> None:
    while not all(server.started for server in servers):  # noqa: ASYNC110 - uvicorn offers a flag and no event
        await anyio.sleep(0.005)


async def _stop(service: Service, servers: Sequence[_Server]) -> None:
    with anyio.move_on_after(1):
        try:
            await service.withdraw()
        except (MeshError, OSError) as error:
            log.warning("withdrawal_failed", error=str(error))
    await anyio.sleep(service.drain_delay.total_seconds())
    for server in servers:
        server.should_exit = True


async def run_process(service: Service) -> None:
    """Run one service as a process of its own: bind its listeners, serve, and stop on SIGINT or SIGTERM.

    SIGHUP calls `Service.on_hangup`; a service without one stops on it, as when its terminal is closed.

    Raises:
        ConfigurationError: A part found a setting that cannot be, such as a port that is taken.
    """
    try:
        await _run_until_signal(service)
    except ExceptionGroup as group:
        wrong, other = group.split(ConfigurationError)
        if wrong is None or other is not None:
            raise
        raise _first_of(wrong) from group


def _first_of(group: ExceptionGroup[ConfigurationError]) -> ConfigurationError:
    error = group.exceptions[0]
    return _first_of(error) if isinstance(error, ExceptionGroup) else error


async def _act_on(heard: MemoryObjectReceiveStream[None], action: Callable[[], Awaitable[None]] | None) -> None:
    with heard:
        if action is not None:
            async for _ in heard:
                await action()


async def _run_until_signal(service: Service) -> None:
    sockets = {listener.name: bind(listener.host, listener.port) for listener in service.listeners}
    try:
        async with anyio.create_task_group() as group:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                await group.start(partial(serve, service, sockets))
                group.start_soon(keep_collector_calm)
                hangups, heard = anyio.create_memory_object_stream[None](1)
                group.start_soon(_act_on, heard, service.on_hangup)
                with hangups:
                    async for number in signals:
                        if number == signal.SIGHUP and service.on_hangup is not None:
                            with contextlib.suppress(anyio.WouldBlock):  # one that waits to be acted on is enough
                                hangups.send_nowait(None)
                        else:
                            group.cancel_scope.cancel()
    finally:
        for sock in sockets.values():
            sock.close()

"""One service of the all-in-one host, restarted alone when it crashes; the others go on.

    stopped -> starting -> ready -> restarting -> ready ...        any -> stopped

Its sockets belong to the host and stay open in between, so callers wait in the listen queue instead of being refused.
"""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskStatus
from toska_common.server import Service, serve

from toska_cli.backoff import Backoff

log = structlog.get_logger(__name__)

State = Literal["starting", "ready", "restarting", "stopped"]


class HostedService:
    """A service in this process's event loop.

    Args:
        service: Its first life.
        rebuild: Makes it anew for each later one.
        sockets: Bound sockets by listener name; the caller closes them.
        on_restart: Told of each crash, with the seconds until the next life.
    """

    def __init__(
        self,
        service: Service,
        rebuild: Callable[[], Service],
        sockets: Mapping[str, socket.socket],
        *,
        on_restart: Callable[[str, Exception, float], None] = lambda _name, _error, _delay: None,
    ) -> None:
        self.name = service.name
        self.state: State = "stopped"
        self._service = service
        self._rebuild = rebuild
        self._sockets = sockets
        self._on_restart = on_restart
        self._life: _Life | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped; `task_status` is told when it is ready for the first time.

        Raises:
            Exception: What kept it from becoming ready at all. Later crashes restart it.
        """
        structlog.contextvars.bind_contextvars(service=self.name)
        self.state = "starting"
        self._life = life = _Life()
        try:
            with life.scope:
                await self._live(task_status)
        finally:
            self.state = "stopped"
            life.ended.set()

    def stop(self) -> None:
        """Let it drain and end; `wait_ended` waits for that."""
        if self._life is not None:
            self._life.scope.cancel()

    async def wait_ended(self) -> None:
        """Wait until `run` has returned; at once if it was never called."""
        if self._life is not None:
            await self._life.ended.wait()

    async def _live(self, task_status: TaskStatus[None]) -> None:
        backoff = Backoff()
        while True:
            started_at = time.monotonic()
            try:
                await serve(self._service, self._sockets, task_status=_Ready(self, task_status))
            except Exception as error:
                if self.state == "starting":
                    raise
                await self._wait_to_restart(error, backoff.delay_after(time.monotonic() - started_at))

    async def _wait_to_restart(self, error: Exception, delay: float) -> None:
        self.state = "restarting"
        log.error("service_crashed", restart_in_s=delay, exc_info=error)
        self._on_restart(self.name, error, delay)
        await anyio.sleep(delay)
        self._service = self._rebuild()


@dataclass(frozen=True, slots=True)
class _Life:
    """What `stop` and `wait_ended` need of a `run`."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class _Ready(TaskStatus[None]):
    """Marks each life's readiness, and passes the first one on."""

    def __init__(self, hosted: HostedService, first: TaskStatus[None]) -> None:
        self._hosted = hosted
        self._first = first

    def started(self, value: None = None) -> None:
        if self._hosted.state == "starting":
            self._first.started()
        self._hosted.state = "ready"

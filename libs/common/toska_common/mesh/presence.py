"""The life of an app in the mesh, from its start to its end, under whatever server runs it.

    start     the app's own start ── find the server ── its socket accepts ── register ── renew …
    signal    readiness fails ── revoke ── drain delay ── the server's own handler ── event streams end ── the rest,
              when its grace is over

Under a test client there is no server: nothing registers, nothing waits. Where no signal handler can stand (a server in
a thread), the app leaves when its server is told to stop.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from anyio.abc import TaskGroup

from toska_common.clients.consul import ServiceRegistration
from toska_common.contracts.discovery import Report
from toska_common.health import HealthChecks
from toska_common.mesh.exchanges import Exchanges
from toska_common.mesh.listening import (
    Listening,
    NotReachable,
    advertised_address,
    find_other_server,
    find_server,
    wait_until_listening,
)
from toska_common.mesh.membership import Membership
from toska_common.mesh.registry import RegistryLink
from toska_common.mesh.settings import MeshSettings
from toska_common.mesh.signals import SignalChain
from toska_common.mesh.worker_metrics import Family, WorkerMetrics
from toska_common.mesh.workers import LoneWorker, WorkerGroup

if TYPE_CHECKING:
    import uvicorn

log = structlog.get_logger(__name__)

_STOP_POLL_S = 0.1
_JOIN_WORKERS_WITHIN_S = 3.0


class Presence:
    """One run of an app.

    Args:
        settings: Of the app.
        health: Its checks; readiness fails once it leaves.
        exchanges: Its requests in progress.
        link: The registry.
        build: Makes the registration for an advertised address and port.
        collect: The present metrics of this process.
        report: Makes the report of a renewal, of this process's metrics or of those of all workers.
        group: Where background work runs.
    """

    def __init__(
        self,
        *,
        settings: MeshSettings,
        health: HealthChecks,
        exchanges: Exchanges,
        link: RegistryLink,
        build: Callable[[str, int], ServiceRegistration],
        collect: Callable[[], list[Family]],
        report: Callable[[WorkerMetrics | None], Awaitable[Report]],
        group: TaskGroup,
    ) -> None:
        self.workers: WorkerMetrics | None = None
        """The metrics of all workers, once the server is found."""
        self._settings = settings
        self._health = health
        self._exchanges = exchanges
        self._link = link
        self._build = build
        self._collect = collect
        self._report = report
        self._group = group
        self._server: uvicorn.Server | None = None
        self._signals: SignalChain | None = None
        self._stop = anyio.Event()
        self._members: WorkerGroup | LoneWorker | None = None
        self._membership: Membership | None = None
        self._leaving = anyio.Lock()
        self._left = False

    @asynccontextmanager
    async def lasting(self) -> AsyncGenerator[None]:
        """Whatever happens in the block, the app has left the mesh after it."""
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.leave()
            if self._signals is not None:
                self._signals.remove()

    def start(self, state: MutableMapping[str, Any] | None) -> None:
        """The app has started: join as soon as its server accepts connections. `state` is that of the lifespan."""
        self._server = find_server(state)
        if self._server is None:
            other = find_other_server()
            if other is not None:
                log.warning("mesh_not_joined", reason=f"{other} runs this app, and only apps under uvicorn can join")
            return
        self._signals = SignalChain(self._stop.set)
        if not self._signals.install():
            self.start_soon(self._watch_server, self._server)
        self.start_soon(self._stop_in_order, self._signals)
        self.start_soon(self._join, self._server)

    @property
    def bound_host(self) -> str | None:
        """The interface that the server was told to bind; `None` if there is no server, but a test client."""
        return None if self._server is None else self._server.config.host or "127.0.0.1"

    def start_soon(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run background work; its failure is logged and does not take the app with it."""

        async def guarded() -> None:
            try:
                await function(*args)
            except Exception:
                log.exception("mesh_task_crashed", task=function.__qualname__)

        self._group.start_soon(guarded, name=function.__qualname__)

    async def leave(self) -> bool:
        """Fail readiness, and take the instance off the list if this was its last worker; tells whether it did."""
        async with self._leaving:
            if self._left:
                return False
            self._left = True
            self._health.draining = True
            if self._members is None:
                return False
            async with self._members.leaving() as last:
                if self._membership is None:
                    return False
                await self._membership.end(revoke=last)
                return last

    async def _join(self, server: "uvicorn.Server") -> None:
        try:
            listening = await wait_until_listening(server)
        except NotReachable as reason:
            log.warning("mesh_not_joined", reason=str(reason))
            return
        address, port = self._advertised(listening)
        async with self._leaving:
            if self._left:
                return
            members = self._members = await self._join_workers(self._build(address, port).id)
            if isinstance(members, WorkerGroup):
                self.workers = WorkerMetrics(members.folder, self._collect)
                self.start_soon(self.workers.serve)
            if not self._settings.join:
                log.info("mesh_not_joined", reason="TOSKA_JOIN is off")
                return
            self._membership = Membership(
                self._link,
                lambda: self._build(address, port),
                self._settings.lease_ttl,
                members.lead,
                partial(self._report, self.workers),
            )
        await self._membership.keep()

    async def _join_workers(self, instance_id: str) -> WorkerGroup | LoneWorker:
        try:
            with anyio.fail_after(_JOIN_WORKERS_WITHIN_S):
                return await WorkerGroup.join(instance_id)
        except OSError as error:  # a TimeoutError is one
            log.warning(
                "workers_not_coordinated",
                reason=str(error) or "another worker of this instance hangs in its shutdown",
                consequence="each worker registers for itself; set XDG_RUNTIME_DIR to a writable folder",
            )
            return LoneWorker()

    def _advertised(self, listening: Listening) -> tuple[str, int]:
        address = self._settings.advertise_address or advertised_address(listening.host, self._link.url)
        return address, self._settings.advertise_port or listening.port

    async def _watch_server(self, server: "uvicorn.Server") -> None:
        while not server.should_exit:  # noqa: ASYNC110 - uvicorn offers a flag and no event
            await anyio.sleep(_STOP_POLL_S)
        self._stop.set()

    async def _stop_in_order(self, signals: SignalChain) -> None:
        await self._stop.wait()
        was_listed = await self.leave()
        if was_listed and not self._is_reloading():
            # Whoever hears of the revocation late still finds the listener open.
            await anyio.sleep(self._settings.drain_delay.total_seconds())
        signals.forward()
        self._exchanges.end_endless()
        await anyio.sleep(self._grace().total_seconds())
        self._exchanges.end_all()

    def _is_reloading(self) -> bool:
        # A developer who saved a file waits for this.
        return self._server is not None and bool(self._server.config.reload)

    def _grace(self) -> timedelta:
        given = None if self._server is None else self._server.config.timeout_graceful_shutdown
        return self._settings.shutdown_grace if given is None else timedelta(seconds=given)

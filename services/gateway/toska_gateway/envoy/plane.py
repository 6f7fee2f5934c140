"""Implements `toska_gateway.data_plane.DataPlane` with an Envoy: the one place where its parts meet."""

import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup
from toska_common.clock import now_utc
from toska_common.contracts.gateway import IssuerKeys
from toska_common.contracts.gateway_stats import GatewayStats
from toska_common.contracts.routing import Snapshot
from toska_common.contracts.tallies import TallyReport
from toska_common.envoy import Judged, Options, Resources, RouteParts, find_refusals, translate
from toska_common.envoy.faults import ended, next_end
from toska_common.errors import ConfigurationError, UpstreamUnavailable
from toska_common.routing.problems import format_location
from toska_common.targets import TargetRules

from toska_gateway.envoy.ads import AdsServer, Refused
from toska_gateway.envoy.binary import envoy_binary
from toska_gateway.envoy.explaining import Explainer
from toska_gateway.envoy.feed import Feed
from toska_gateway.envoy.folder import RuntimeFolder
from toska_gateway.envoy.ports import keep_all
from toska_gateway.envoy.process import EnvoyLost, EnvoyStatus
from toska_gateway.envoy.readings import Readings
from toska_gateway.envoy.slot import EnvoySlot
from toska_gateway.envoy.targets import LOOK_UP_EVERY_S, Targets
from toska_gateway.errors import NoWorker, RenewalFailed, SnapshotRejected
from toska_gateway.exposition import render
from toska_gateway.listeners import ListenerAddress
from toska_gateway.stats_view import build_stats
from toska_gateway.tls_files import TlsFiles
from toska_gateway.tls_material import NO_TLS, TlsFilesRefused, TlsMaterial
from toska_gateway.watches import Watches
from toska_gateway.worker.via import NAME

log = structlog.get_logger(__name__)

DRAIN_S: Final = 1.5
"""How long requests in flight may take once the gateway stops."""
_SWEEP_S: Final = 1.0
_COUNT_S: Final = 0.5


class EnvoyDataPlane:
    """A data plane of one Envoy.

    Args:
        listeners: Where it takes requests.
        threads: How many of Envoy's threads move them.
        management: The mesh's own `(address, port)` pairs, which no user's cluster may lead to.
        tls_folder: Where relative paths of certificates, keys and logs begin.
        drain_s: Seconds that connections of an old configuration have to finish.

    Raises:
        ConfigurationError: Envoy is not installed, or an address is taken.
    """

    def __init__(
        self,
        listeners: Sequence[ListenerAddress],
        threads: int,
        management: Iterable[tuple[str, int]] = (),
        *,
        tls_folder: Path,
        drain_s: float,
    ) -> None:
        binary = envoy_binary()
        self.pseudonym = f"{NAME}-{secrets.token_hex(4)}"
        self._threads = threads
        self._tls_folder = tls_folder.absolute()
        self._targets = Targets(TargetRules(frozenset(management)))
        self._addresses = keep_all(listeners)
        self._folder = RuntimeFolder()
        socket = self._folder.path / "ads.sock"
        self._ads = AdsServer(socket)
        self._feed = Feed(self._ads)
        self._slot = EnvoySlot(binary, self._folder, socket, self.pseudonym, threads=threads, drain_s=drain_s)
        self._tls_files = TlsFiles(tls_folder)
        self._tls = NO_TLS
        self._readings = Readings()
        self._snapshot: Snapshot | None = None
        self._changing = anyio.Lock()
        self._reading = anyio.Lock()
        self._watches = Watches(self.pseudonym)
        self._retimed = anyio.Event()
        self._group: TaskGroup | None = None
        self._judged = Judged()
        self._parts = RouteParts()
        self._explainer: Explainer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the first TCP listener, or the path of a Unix socket and 0."""
        bound = [one.bound for one in self._addresses]
        return next((address for address in bound if address[1]), bound[0])

    @property
    def urls(self) -> list[str]:
        """Every listener, as clients find it."""
        tls = self._snapshot is not None and self._snapshot.table.server.tls is not None
        return [one.address.url(one.bound[1], tls=tls) for one in self._addresses]

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Serve while the context is open; Envoy starts with the first snapshot. Leaving drains it."""
        await self._ads.open()
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._keep_tls)
                self._group.start_soon(self._keep_tidy)
                self._group.start_soon(self._keep_names)
                self._group.start_soon(self._keep_counting)
                self._group.start_soon(self._keep_time)
                try:
                    yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._slot.stop(DRAIN_S)
                    self._group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._ads.aclose()
            for one in self._addresses:
                one.close()
            self._folder.remove()

    async def apply(self, snapshot: Snapshot) -> None:
        """Serve `snapshot`; returns once Envoy has taken it.

        Raises:
            SnapshotRejected: Envoy cannot do that, a file that it names cannot be used, or Envoy refused it.
        """
        async with self._changing:
            # In a thread, here and below: ten thousand routes take a second, and this loop has others to serve.
            refusals = await to_thread.run_sync(find_refusals, snapshot.table, self._judged)
            if refusals:
                raise SnapshotRejected(
                    [{"field": format_location(one.location), "reason": one.reason} for one in refusals]
                )
            try:
                tls = await self._tls_files.read(snapshot.table)
            except TlsFilesRefused as error:
                raise SnapshotRejected(error.problems) from error
            await self._targets.look_up(snapshot)
            await self._put_in_force(snapshot, tls)
            self._tls_files.use(tls)

    async def _put_in_force(self, snapshot: Snapshot, tls: TlsMaterial) -> None:
        if self._watches.is_watching or any(route.policies.watch for route in snapshot.table.routes):
            await self._read()  # what was counted until now belongs to what is watched until now
        resources = await to_thread.run_sync(self._translated, snapshot, tls)
        try:
            if self._slot.current is None and self._snapshot is None:
                await self._begin(resources)
            else:
                await self._push(resources)
        except Refused as error:
            raise _rejected(error) from error
        self._snapshot, self._tls = snapshot, tls
        self._watches.use(snapshot.table, anyio.current_time())
        self._retimed.set()
        self._retimed = anyio.Event()

    def _translated(self, snapshot: Snapshot, tls: TlsMaterial) -> Resources:
        options = Options(
            listeners=tuple(one.options(number) for number, one in enumerate(self._addresses)),
            workers=self._threads,
            pseudonym=self.pseudonym,
            folder=self._tls_folder,
            addresses=self._targets.addresses,
            tls_version=tls.version,
        )
        return translate(ended(snapshot.table, now_utc()), self._targets.allowed(snapshot), options, self._parts)

    async def _begin(self, resources: Resources) -> None:
        if self._group is None:
            raise NoWorker("the data plane is not open")
        await self._feed.begin(resources)
        try:
            process = await self._slot.run(self._group)
        except (EnvoyLost, OSError) as error:
            raise ConfigurationError(str(error)) from error
        await self._feed.begun(process)

    async def _push(self, resources: Resources) -> None:
        process = self._slot.current
        if process is None:
            # It is being started anew. It may have been told what was in force before, and not yet serve.
            await self._feed.replace(resources)
            return
        try:
            await self._feed.push(resources, process)
        except UpstreamUnavailable as error:
            log.warning("envoy_does_not_answer", reason=error.detail)
            await self._feed.begin(resources)

    async def _keep_tls(self) -> None:
        """Have Envoy read certificates and keys anew when their files change; what cannot be used changes nothing."""
        while True:
            await self._tls_files.changed()
            async with self._changing:
                if self._snapshot is not None:
                    await self._renew_tls(self._snapshot)

    async def _renew_tls(self, snapshot: Snapshot) -> None:
        async def put_in_force(tls: TlsMaterial) -> None:
            await self._put_in_force(snapshot, tls)

        await self._tls_files.renew(snapshot.table, self._tls, put_in_force)

    async def _keep_names(self) -> None:
        """Tell Envoy where names lead to by now."""
        while True:
            await anyio.sleep(LOOK_UP_EVERY_S)
            async with self._changing:
                if self._snapshot is not None and await self._targets.look_up(self._snapshot):
                    await self._put_in_force(self._snapshot, self._tls)

    async def _keep_counting(self) -> None:
        """Hear often of routes under watch: the router is told of them once a second."""
        while True:
            await anyio.sleep(_COUNT_S)
            if self._watches.is_watching:
                await self._read()

    async def _keep_time(self) -> None:
        """Have faults end when their time is over."""
        while True:
            changed, now = self._retimed, now_utc()
            end = next_end(self._snapshot.table, now) if self._snapshot is not None else None
            with anyio.move_on_after(None if end is None else (end - now).total_seconds()):
                await changed.wait()
                continue
            async with self._changing:
                if self._snapshot is not None:
                    await self._put_in_force(self._snapshot, self._tls)

    async def _keep_tidy(self) -> None:
        while True:
            await anyio.sleep(_SWEEP_S)
            async with self._changing:
                await self._feed.sweep(anyio.current_time())

    async def renew(self) -> Sequence[EnvoyStatus]:
        """Replace Envoy by a new process on the same addresses; the one before finishes what it has begun.

        Raises:
            RenewalFailed: The successor does not serve; the one before goes on.
        """
        async with self._changing:
            try:
                successor = await self._slot.renew()
            except (EnvoyLost, OSError) as error:
                raise RenewalFailed(f"Envoy has no successor: {error}") from error
            log.info("envoy_renewed", pid=successor.process.pid)
            return [successor.status()]

    async def purge(self, what: Mapping[str, str]) -> int:
        """Forget stored responses: Envoy stores none."""
        _ = what
        return 0

    def end_responses(self, what: Mapping[str, Sequence[str]]) -> None:
        """Envoy stores none."""

    def workers(self) -> Sequence[EnvoyStatus]:
        """How each Envoy is: the one that serves, then those that finish."""
        return [process.status() for process in self._slot.processes]

    async def explain(self, request: bytes, peer: str, scheme: str) -> dict[str, Any]:
        """What would become of a request, by our own matcher and what Envoy says of its endpoints.

        Raises:
            NoWorker: No Envoy serves now.
        """
        process, snapshot = self._slot.current, self._snapshot
        if process is None or snapshot is None:
            raise NoWorker("no Envoy serves now")
        await self._read()
        if self._explainer is None or self._explainer.snapshot is not snapshot:
            self._explainer = await Explainer.of(snapshot)
        told = self._explainer.explain(request, peer, scheme, self._readings.hosts(process.process.pid))
        return {"pid": process.process.pid, **told}

    def counted(self) -> TallyReport | None:
        """What was counted on routes under watch until it was read last; `None` if there are none."""
        return self._watches.report(anyio.current_time())

    def issuer_keys(self) -> Sequence[IssuerKeys]:
        """How the keys are that tokens are verified with: Envoy fetches them by itself, and tells nothing of them."""
        return ()

    async def metrics(self, *, openmetrics: bool = False) -> str:
        """Envoy's counts under the gateway's own names."""
        await self._read()
        live = sum(process.state == "running" for process in self._slot.processes)
        return render(self._readings.totals, self._readings.gauges(), live, openmetrics=openmetrics)

    async def stats(self) -> GatewayStats:
        """What was counted, and how things stand."""
        await self._read()
        live = sum(process.state == "running" for process in self._slot.processes)
        now = anyio.current_time()
        gauges = self._readings.gauges()
        return build_stats(self._readings.totals, gauges, instance=self.pseudonym, now=now, workers=live)

    async def _read(self) -> None:
        async with self._reading:  # two readings at once would each take the other's for news
            processes = self._slot.processes
            self._readings.keep({process.process.pid for process in processes})
            for process in processes:
                try:
                    self._watches.add(await self._readings.take(process, self._snapshot))
                except UpstreamUnavailable as error:
                    log.warning("envoy_not_read", pid=process.process.pid, reason=error.detail)


def _rejected(error: Refused) -> SnapshotRejected:
    return SnapshotRejected([{"field": "snapshot", "reason": f"Envoy refuses it: {error}"}])

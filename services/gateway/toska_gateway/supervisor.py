"""The Python engine's parent: opens the data listener, keeps N worker processes alive, and hands them snapshots.

A worker that ends is replaced on the same socket (`worker_slot`), and so is each in turn when workers are renewed.
Nothing that is queued on the socket is lost meanwhile.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import structlog
from toska_common.contracts.gateway import IssuerKeys
from toska_common.contracts.gateway_stats import GatewayStats
from toska_common.contracts.routing import Snapshot
from toska_common.contracts.tallies import TallyReport
from toska_common.routing.picking import PickedClusters
from toska_common.routing.problems import format_location
from toska_common.targets import TargetRules

from toska_gateway.errors import NoWorker, RenewalFailed, SnapshotRejected
from toska_gateway.exposition import render
from toska_gateway.filter_trial import FilterTrial
from toska_gateway.gauges import Gauges
from toska_gateway.issuer_keys.keeper import Followers, KeyKeeper, messages_of
from toska_gateway.issuer_keys.sources import KeysRefused
from toska_gateway.listeners import ListenerAddress
from toska_gateway.prober import Prober
from toska_gateway.refusals import is_refused, refusal
from toska_gateway.shared_memory import open_shared_memory
from toska_gateway.sockets import open_all
from toska_gateway.span_exporter import SpanExporter
from toska_gateway.stats_view import build_stats
from toska_gateway.tls_files import TlsFiles
from toska_gateway.tls_material import NO_TLS, TlsFilesRefused, TlsMaterial
from toska_gateway.totals import Totals
from toska_gateway.watches import Watches
from toska_gateway.wire import is_owned_by_the_mesh, rehearse
from toska_gateway.worker.allowances import DEFAULT_ENTRIES, size_of
from toska_gateway.worker.via import NAME
from toska_gateway.worker_process import Hearers, WorkerLost, WorkerProcess, WorkerStatus
from toska_gateway.worker_slot import WorkerSlot
from toska_gateway.workers import Workers

log = structlog.get_logger(__name__)

REPORT_PERIOD_S = 1.0
DRAIN_S = 1.5
"""How long requests in flight may take once the gateway stops."""
RENEWAL_DRAIN_S = 30.0
"""How long requests in flight may take once their worker has a successor."""
TIDY_PERIOD_S = 60.0
"""How often endpoints that left are looked for among what was counted."""
TICKET_PERIOD_S = 12 * 3600.0
_HERE = Path()


class Supervisor:
    """Implements `toska_gateway.data_plane.DataPlane` with processes of our own.

    Args:
        host: Address of the data listener.
        port: Its port; 0 takes a free one.
        workers: Number of processes.
        management: The mesh's own `(address, port)` pairs, which no user's cluster may lead to.
        listeners: Every listener; default: one on `host` and `port`.
        tls_folder: Where relative paths of certificates and keys begin.
        drain_s: Seconds that a worker has for its requests in flight once it has a successor.
        secret: What affinity cookies are made with; gateways that share clients share it.
        home: Where issuers' keys that were fetched are kept for the next start; default: nowhere.
        filters_folder: Where modules of filters are that are not installed; default: the working directory.
        zone: Where this gateway runs, for clusters with `zone: local`.
        cache_url: Where the mesh's gateways share what they count and keep; it may have a password in it.
        tell: Told of the lines that workers write to the log, by event and fields.
    """

    def __init__(
        self,
        host: str,
        port: int,
        workers: int,
        management: Iterable[tuple[str, int]] = (),
        *,
        listeners: Sequence[ListenerAddress] = (),
        tls_folder: Path = _HERE,
        drain_s: float = RENEWAL_DRAIN_S,
        secret: bytes = b"",
        cache_url: str = "memory://",
        home: Path | None = None,
        filters_folder: Path = _HERE,
        zone: str = "",
        tell: Callable[[str, Mapping[str, Any]], None] = lambda _event, _fields: None,
    ) -> None:
        self._tell = tell
        self._zone = zone
        self._filters_folder = filters_folder.absolute()
        self._filters = FilterTrial(self._filters_folder)
        self._cache_url = cache_url
        self._drain_s = drain_s
        self.pseudonym = f"{NAME}-{secrets.token_hex(4)}"
        self._management = tuple(management)
        self._secret = secret or secrets.token_bytes(32)
        self._sockets = open_all(listeners or [ListenerAddress(host, port)], workers)
        self._slots = [WorkerSlot(number, self._launch, self._greet) for number in range(workers)]
        self._workers = Workers(self._slots)
        self._folder = tls_folder.absolute()
        self._tls_files = TlsFiles(tls_folder)
        self._tls = NO_TLS
        self._refused = PickedClusters(lambda _, cluster: is_refused(cluster))
        self._checked = PickedClusters(lambda _, cluster: cluster.health_check is not None)
        self._owned = PickedClusters(lambda name, _: is_owned_by_the_mesh(name))
        self._keys = KeyKeeper(tls_folder, TargetRules(frozenset(self._management)).refusal, self._workers.tell, home)
        self._followers: Followers = {}
        self._shared_fd = open_shared_memory(size_of(DEFAULT_ENTRIES))
        self._ticket_secret = secrets.token_hex(32)
        self._snapshot: Snapshot | None = None
        self._mesh_owned: frozenset[str] = frozenset()
        self._totals = Totals()
        self._watches = Watches(self.pseudonym)
        self._exporter = SpanExporter(self.pseudonym, tls_folder.absolute())
        self._tidy_at = 0.0
        self._prober: Prober | None = None  # once a cluster wants its health checked
        self._lock = anyio.Lock()
        self._renewing = anyio.Lock()
        self._wanted = anyio.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Where the data plane listens: the first TCP listener, or the path of a Unix socket and 0."""
        bound = [sockets.bound for sockets in self._sockets]
        return next((address for address in bound if address[1]), bound[0])

    @property
    def urls(self) -> list[str]:
        """Every listener, as clients find it."""
        tls = self._tls.server is not None
        return [sockets.address.url(sockets.bound[1], tls=tls) for sockets in self._sockets]

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Serve while the context is open; workers start with the first snapshot. Leaving drains them."""
        try:
            async with anyio.create_task_group() as group:
                for slot in self._slots:
                    group.start_soon(self._serve, slot)
                group.start_soon(self._keep_reports)
                group.start_soon(self._exporter.run)
                group.start_soon(self._keep_tls)
                group.start_soon(self._keep_ticket_secret)
                group.start_soon(self._keys.run)
                try:
                    yield
                finally:
                    if self._prober is not None:
                        self._prober.close()
                    with anyio.CancelScope(shield=True):
                        # First of all: who comes now is refused at once, and not queued where nobody will ever serve.
                        self.close()
                        await self._workers.drain(DRAIN_S)
                    group.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Close the listening sockets, and let go of what workers share."""
        for sockets in self._sockets:
            sockets.close()
        if self._shared_fd >= 0:
            os.close(self._shared_fd)
            self._shared_fd = -1

    async def _serve(self, slot: WorkerSlot) -> None:
        await self._wanted.wait()
        await slot.run()

    async def apply(self, snapshot: Snapshot) -> None:
        """Serve `snapshot`; returns once every live worker does.

        Raises:
            SnapshotRejected: It asks for what workers cannot do, a file that it names cannot be used, or a worker
                cannot compile it. All workers go on with the one before.
        """
        if refusals := [refusal(name) for name in self._refused.of(snapshot.table)]:
            raise SnapshotRejected([{"field": format_location(one.location), "reason": one.reason} for one in refusals])
        async with self._lock:
            try:
                tls = await self._tls_files.read(snapshot.table)
                followers = await self._keys.prepare(snapshot.table)
            except (TlsFilesRefused, KeysRefused) as error:
                raise SnapshotRejected(error.problems) from error
            if problems := await self._filters.problems(snapshot.table):
                raise SnapshotRejected(problems)
            await self._put_in_force(snapshot, tls, followers)
            first = not self._wanted.is_set()
            self._wanted.set()
        if first:
            await self._workers.until_listening()

    async def _put_in_force(self, snapshot: Snapshot, tls: TlsMaterial, followers: Followers) -> None:
        mesh_owned = frozenset(self._owned.of(snapshot.table))
        if self._workers.live:
            problems = await self._offer(snapshot, mesh_owned, tls, followers)
        else:
            problems = await rehearse(snapshot, mesh_owned, tls)
        if problems:
            # Compiling is deterministic, so as a rule all refuse alike; one that did not goes back.
            if self._snapshot is not None:
                await self._offer(self._snapshot, self._mesh_owned, self._tls, self._followers)
            raise SnapshotRejected([{"field": "snapshot", "reason": problem} for problem in problems])
        self._snapshot, self._mesh_owned, self._tls, self._followers = snapshot, mesh_owned, tls, followers
        self._watches.use(snapshot.table, anyio.current_time())
        self._keys.use(followers)
        self._exporter.configure(snapshot.table.server.tracing)
        self._tls_files.use(tls)
        self._check_health()
        for sockets in self._sockets:
            if sockets.address.tls and tls.server is None:
                log.error("listener_without_certificate", url=sockets.address.url(sockets.bound[1], tls=True))

    def _check_health(self) -> None:
        """Check the endpoints of the clusters in force that ask for it."""
        if self._snapshot is None:
            return
        checked = self._checked.of(self._snapshot.table)
        if self._prober is None and checked:
            self._prober = Prober(TargetRules(frozenset(self._management)), self._on_health)
        if self._prober is not None:
            self._prober.use(self._snapshot, checked, self._mesh_owned, self._tls)

    def _on_health(self, cluster: str, unhealthy: list[str]) -> None:
        for worker in self._workers.live:
            worker.take_health(cluster, unhealthy)

    async def _keep_tls(self) -> None:
        """Read certificates and keys anew when their files change; what cannot be used changes nothing."""
        while True:
            await self._tls_files.changed()
            async with self._lock:
                if self._snapshot is not None:
                    await self._renew_tls(self._snapshot)

    async def _renew_tls(self, snapshot: Snapshot) -> None:
        async def put_in_force(tls: TlsMaterial) -> None:
            await self._put_in_force(snapshot, tls, self._followers)

        await self._tls_files.renew(snapshot.table, self._tls, put_in_force)

    async def _keep_ticket_secret(self) -> None:
        """Seal TLS sessions with a new secret twice a day, so that a stolen one opens no more than that."""
        while True:
            await anyio.sleep(TICKET_PERIOD_S)
            self._ticket_secret = secrets.token_hex(32)
            for worker in self._workers.live:
                worker.take_ticket_secret(self._ticket_secret)

    async def _offer(
        self, snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial, followers: Followers
    ) -> list[str]:
        keys = messages_of(followers)
        answers = await self._workers.ask_live(lambda worker: worker.apply(snapshot, mesh_owned, tls, keys))
        return sorted({problem for problems in answers for problem in problems})

    async def renew(self) -> list[WorkerStatus]:
        """Replace every worker by a new process, one after the other; returns the new ones.

        Each successor serves before its predecessor stops accepting, which then finishes what it has begun.

        Raises:
            RenewalFailed: A successor does not start. Those that did serve; the others are as they were.
        """
        async with self._renewing:
            self._filters.forget()
            for slot in self._slots:
                try:
                    await slot.renew(self._drain_s)
                except WorkerLost as error:
                    raise RenewalFailed(f"worker {slot.number} has no successor: {error}") from error
            log.info("gateway_workers_renewed", pids=[slot.workers[0].process.pid for slot in self._slots])
            return [slot.workers[0].status() for slot in self._slots]

    def workers(self) -> list[WorkerStatus]:
        """How each worker is, by slot."""
        return self._workers.statuses()

    async def explain(self, request: bytes, peer: str, scheme: str) -> dict[str, Any]:
        """What the worker that has served longest would do with a request.

        Raises:
            NoWorker: None is running.
        """
        for worker in self._workers.live:
            with contextlib.suppress(WorkerLost):
                return {"pid": worker.process.pid, **await worker.explain(request, peer, scheme)}
        raise NoWorker("no worker of this gateway is running; its log says why")

    async def metrics(self, *, openmetrics: bool = False) -> str:
        """The workers' series, summed, as Prometheus's text or OpenMetrics without its mark of the end."""
        await self._workers.refresh_reports()
        self._totals.count(self._exporter.take_counters())
        keys = self._keys.status
        return render(self._totals, self._gauges(), len(self._workers.live), keys=keys, openmetrics=openmetrics)

    async def stats(self) -> GatewayStats:
        """What was counted, and how things stand."""
        await self._workers.refresh_reports()
        self._totals.count(self._exporter.take_counters())
        now, workers = anyio.current_time(), len(self._workers.live)
        return build_stats(self._totals, self._gauges(), instance=self.pseudonym, now=now, workers=workers)

    def _gauges(self) -> Gauges:
        return self._workers.gauges({} if self._snapshot is None else self._snapshot.table.clusters)

    def counted(self) -> TallyReport | None:
        """What was counted on routes under watch; `None` if there are none."""
        return self._watches.report(anyio.current_time())

    def issuer_keys(self) -> list[IssuerKeys]:
        """How the keys are that tokens are verified with."""
        return self._keys.status

    async def _keep_reports(self) -> None:
        while True:
            await anyio.sleep(REPORT_PERIOD_S)
            await self._workers.refresh_reports()
            self._forget_endpoints()

    def _forget_endpoints(self) -> None:
        now = anyio.current_time()
        if self._snapshot is None or now < self._tidy_at:
            return
        self._tidy_at = now + TIDY_PERIOD_S
        present = {
            name: {endpoint.key for endpoint in cluster.endpoints}
            for name, cluster in self._snapshot.endpoints.items()
            if name in self._totals.endpoints
        }
        self._totals.forget(present, now)

    async def _launch(self, slot: int) -> WorkerProcess:
        hello = {
            "management": [list(pair) for pair in self._management],
            "pseudonym": self.pseudonym,
            "shared_fd": self._shared_fd,
            "listeners": [sockets.address.spec() for sockets in self._sockets],
            "affinity_secret": self._secret.hex(),
            "cache_url": self._cache_url,
            "folder": str(self._folder),
            "zone": self._zone,
            "filters_folder": str(self._filters_folder),
            "ticket_secret": self._ticket_secret,
        }
        listeners = [sockets.slots[slot] for sockets in self._sockets]
        hearers = Hearers(self._count, self._exporter.put, self._keys.want, self._tell)
        worker = await WorkerProcess.start(slot, listeners, hello, hearers)
        worker.spread = self._workers.spread
        return worker

    def _count(self, report: Mapping[str, Any]) -> None:
        self._totals.add(report)
        self._watches.add(report)

    async def purge(self, what: Mapping[str, str]) -> int:
        """Forget stored responses in all workers: by `url` or by `route`, else all; returns how many those were."""
        return await self._workers.purge(what)

    def end_responses(self, what: Mapping[str, Sequence[str]]) -> None:
        """Have all workers forget what events say is out of date."""
        self._workers.tell({"op": "outdated", **what})

    async def _greet(self, worker: WorkerProcess) -> None:
        async with self._lock:
            if self._snapshot is not None:
                problems = await worker.apply(self._snapshot, self._mesh_owned, self._tls, messages_of(self._followers))
                if problems:  # what all others serve; only code that is loaded anew can make a difference
                    raise WorkerLost("; ".join(problems))
                for cluster, unhealthy in ({} if self._prober is None else self._prober.unhealthy).items():
                    worker.take_health(cluster, unhealthy)
        await worker.until_listening()
        log.info("gateway_worker_started", slot=worker.slot, pid=worker.process.pid, compiled=worker.compiled)

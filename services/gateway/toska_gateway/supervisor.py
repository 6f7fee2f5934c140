"""The Python engine's parent: opens the data listener, keeps N worker processes alive, and hands them snapshots.

A worker that ends is replaced on the same socket, at once the first time and with growing delay if it keeps dying.
Nothing that is queued on the socket is lost meanwhile.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import anyio
import structlog
from toska_common.contracts.routing import Snapshot

from toska_gateway.errors import SnapshotRejected
from toska_gateway.exposition import Totals, render
from toska_gateway.sockets import open_listeners
from toska_gateway.wire import owned_by_the_mesh, rehearse
from toska_gateway.worker.via import NAME
from toska_gateway.worker_process import WorkerLost, WorkerProcess, WorkerStatus

log = structlog.get_logger(__name__)

REPORT_PERIOD_S = 1.0
DRAIN_S = 1.5
"""How long requests in flight may take once the gateway stops."""
_STEADY_S = 5.0
_MAX_DELAY_S = 5.0


class Supervisor:
    """Implements `toska_gateway.data_plane.DataPlane` with processes of our own.

    Args:
        host: Address of the data listener.
        port: Its port; 0 takes a free one.
        workers: Number of processes.
        management: The mesh's own `(address, port)` pairs, which no user's cluster may lead to.
    """

    def __init__(self, host: str, port: int, workers: int, management: Iterable[tuple[str, int]] = ()) -> None:
        self._count = workers
        self._management = tuple(management)
        self.pseudonym = f"{NAME}-{secrets.token_hex(4)}"
        self._listeners: list[socket.socket] = open_listeners(host, port, workers)
        self._address = self._listeners[0].getsockname()[:2]
        self._workers: dict[int, WorkerProcess] = {}
        self._snapshot: Snapshot | None = None
        self._mesh_owned: frozenset[str] = frozenset()
        self._retired = Totals()
        self._lock = anyio.Lock()
        self._wanted = anyio.Event()
        self._stopping = False

    @property
    def address(self) -> tuple[str, int]:
        """Where the data plane listens."""
        return self._address

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Serve while the context is open; workers start with the first snapshot. Leaving drains them."""
        try:
            async with anyio.create_task_group() as group:
                for slot in range(self._count):
                    group.start_soon(self._keep_alive, slot)
                group.start_soon(self._keep_reports)
                try:
                    yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._drain()
                    group.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Close the listening sockets; for a supervisor that was never run."""
        for listener in self._listeners:
            listener.close()

    async def apply(self, snapshot: Snapshot) -> None:
        """Serve `snapshot`; returns once every live worker does.

        Raises:
            SnapshotRejected: A worker cannot compile it. All workers go on with the one before.
        """
        mesh_owned = owned_by_the_mesh(snapshot.table.clusters)
        async with self._lock:
            offered = bool(self._live())
            problems = await self._offer(snapshot, mesh_owned) if offered else rehearse(snapshot, mesh_owned)
            if problems:
                # Compiling is deterministic, so as a rule all refuse alike; one that did not goes back.
                if self._snapshot is not None:
                    await self._offer(self._snapshot, self._mesh_owned)
                raise SnapshotRejected([{"field": "snapshot", "reason": problem} for problem in problems])
            self._snapshot, self._mesh_owned = snapshot, mesh_owned
            first = not self._wanted.is_set()
            self._wanted.set()
        if first:
            await self._until_listening()

    async def _offer(self, snapshot: Snapshot, mesh_owned: frozenset[str]) -> list[str]:
        answers: list[list[str]] = []

        async def offer(worker: WorkerProcess) -> None:
            try:
                answers.append(await worker.apply(snapshot, mesh_owned))
            except WorkerLost as error:
                self._replace_stuck(worker, error)

        async with anyio.create_task_group() as group:
            for worker in self._live():
                group.start_soon(offer, worker)
        return sorted({problem for problems in answers for problem in problems})

    async def _until_listening(self) -> None:
        with anyio.move_on_after(10):
            while not any(worker.state == "running" for worker in self._workers.values()):  # noqa: ASYNC110 - slots come and go
                await anyio.sleep(0.005)

    def workers(self) -> list[WorkerStatus]:
        """How each worker is, by slot."""
        return [worker.status() for _, worker in sorted(self._workers.items())]

    async def metrics(self) -> str:
        """The workers' series, summed, in Prometheus's text format."""
        await self._refresh_reports()
        live = self._live()
        totals = self._retired.copy()
        for worker in self._workers.values():  # also those that have just ended and are not among the retired yet
            totals.add(worker.report)
        return render(totals, (worker.report for worker in live), len(live))

    def _live(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if worker.state in ("starting", "running")]

    async def _keep_reports(self) -> None:
        while True:
            await anyio.sleep(REPORT_PERIOD_S)
            await self._refresh_reports()

    async def _refresh_reports(self) -> None:
        async def refresh(worker: WorkerProcess) -> None:
            try:
                await worker.refresh_report()
            except WorkerLost as error:
                self._replace_stuck(worker, error)

        async with anyio.create_task_group() as group:
            for worker in self._live():
                if worker.state == "running":
                    group.start_soon(refresh, worker)

    def _replace_stuck(self, worker: WorkerProcess, error: WorkerLost) -> None:
        if worker.process.returncode is None and worker.state != "dead":
            log.error("gateway_worker_stuck", slot=worker.slot, pid=worker.process.pid, reason=str(error))
            worker.kill()

    async def _keep_alive(self, slot: int) -> None:
        """Run one worker after the other in a slot, until stopped."""
        await self._wanted.wait()
        loop = asyncio.get_running_loop()
        delay = 0.0
        while not self._stopping:
            started = loop.time()
            try:
                worker = await self._start(slot)
            except OSError as error:
                delay = min(_MAX_DELAY_S, delay * 2 + 0.05)
                log.error("gateway_worker_failed_to_start", slot=slot, reason=str(error))
                await anyio.sleep(delay)
                continue
            try:
                await self._greet(worker)
                code = await worker.process.wait()
            except BaseException:
                worker.kill()
                raise
            self._retired.add(worker.report)
            worker.report = {}
            if self._stopping:
                return
            log.warning("gateway_worker_ended", slot=slot, pid=worker.process.pid, exit_code=code)
            # One that was told to end and has (0) is no crash, however young: what is queued for it should not wait.
            steady = code == 0 or loop.time() - started > _STEADY_S
            delay = 0.0 if steady else min(_MAX_DELAY_S, delay * 2 + 0.05)
            await anyio.sleep(delay)

    async def _start(self, slot: int) -> WorkerProcess:
        worker = await WorkerProcess.start(slot, self._listeners[slot], self._management, self.pseudonym)
        self._workers[slot] = worker
        return worker

    async def _greet(self, worker: WorkerProcess) -> None:
        try:
            async with self._lock:
                if self._snapshot is not None:
                    await worker.apply(self._snapshot, self._mesh_owned)
            await worker.until_listening()
            log.info("gateway_worker_started", slot=worker.slot, pid=worker.process.pid)
        except WorkerLost as error:
            log.error("gateway_worker_failed_to_start", slot=worker.slot, reason=str(error))
            worker.kill()

    async def _drain(self) -> None:
        self._stopping = True
        await self._refresh_reports()
        workers = list(self._workers.values())
        for worker in workers:
            worker.drain(DRAIN_S)
        with anyio.move_on_after(DRAIN_S + 0.5):
            for worker in workers:
                await worker.process.wait()
        for worker in workers:
            if worker.process.returncode is None:
                worker.kill()
                await worker.process.wait()

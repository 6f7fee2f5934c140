"""All worker processes of a gateway together: asked at once, and whoever does not answer makes room for another."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import structlog
from toska_common.contracts.routing import Cluster

from toska_gateway.gauges import Gauges
from toska_gateway.worker_process import WorkerLost, WorkerProcess, WorkerStatus
from toska_gateway.worker_slot import WorkerSlot

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Workers:
    """The processes in some slots, whatever becomes of each."""

    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self._slots = slots

    @property
    def present(self) -> list[WorkerProcess]:
        """All of them, by slot."""
        return [worker for slot in self._slots for worker in slot.workers]

    @property
    def live(self) -> list[WorkerProcess]:
        """Those that serve what comes, or will."""
        return self._in("starting", "running")

    @property
    def _alive(self) -> list[WorkerProcess]:
        return self._in("starting", "running", "draining")

    def _in(self, *states: str) -> list[WorkerProcess]:
        return [worker for worker in self.present if worker.state in states]

    def statuses(self) -> list[WorkerStatus]:
        """How each is."""
        return [worker.status() for worker in self.present]

    def gauges(self, clusters: Mapping[str, Cluster]) -> Gauges:
        """How things stand in all of them, with these clusters in force."""
        return Gauges((worker.standing for worker in self._alive), clusters)

    async def until_listening(self) -> None:
        """Wait until one of them takes connections, or for 10 s."""
        with anyio.move_on_after(10):
            while not any(worker.state == "running" for worker in self.present):  # noqa: ASYNC110 - they come and go
                await anyio.sleep(0.005)

    # -- what they are asked and told

    async def ask_live(self, question: Callable[[WorkerProcess], Awaitable[T]]) -> list[T]:
        """Ask those that serve, all at once; returns the answers of those that gave one."""
        return await self._ask(self.live, question)

    async def refresh_reports(self) -> None:
        """Have what was counted told."""
        await self._ask(self._in("running", "draining"), WorkerProcess.refresh_report)

    async def purge(self, what: Mapping[str, str]) -> int:
        """Forget stored responses: by `url` or by `route`, else all; returns how many those were."""
        # What is stored by one that does not answer goes with it.
        return sum(await self._ask(self._alive, lambda worker: worker.purge(what)))

    def spread(self, origin: WorkerProcess, message: Mapping[str, Any]) -> None:
        """Pass on what one has seen change in the stored responses of all."""
        for worker in self._alive:
            if worker is not origin:
                worker.forget(message)

    def tell(self, message: dict[str, Any]) -> None:
        """Send the same to all."""
        for worker in self._alive:
            worker.channel.send(message)

    async def _ask(
        self, workers: Sequence[WorkerProcess], question: Callable[[WorkerProcess], Awaitable[T]]
    ) -> list[T]:
        answers: list[T] = []

        async def ask(worker: WorkerProcess) -> None:
            try:
                answers.append(await question(worker))
            except WorkerLost as error:
                _replace_stuck(worker, error)

        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(ask, worker)
        return answers

    # -- their end

    async def drain(self, seconds: float) -> None:
        """Have them finish what they have begun, within so many seconds, and end."""
        for slot in self._slots:
            slot.stop(seconds)
        workers = self.present
        with anyio.move_on_after(seconds + 0.5):
            for worker in workers:
                await worker.process.wait()
        for worker in workers:
            if worker.process.returncode is None:
                worker.kill()
                await worker.process.wait()


def _replace_stuck(worker: WorkerProcess, error: WorkerLost) -> None:
    if worker.process.returncode is None and worker.state != "dead":
        log.error("gateway_worker_stuck", slot=worker.slot, pid=worker.process.pid, reason=str(error))
        worker.kill()

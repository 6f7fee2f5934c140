"""One place among the workers: a process serves there, and when it ends or is replaced, the next one does.

    vacant ──▶ started ──▶ running ──ends by itself──▶ vacant (at once, or after a growing delay if it keeps dying)
                              └──▶ succeeded: the successor runs on the same sockets, then this one drains and ends

Processes that have been succeeded are seen off here too, so that none is lost.
"""

from collections.abc import Awaitable, Callable

import anyio
import structlog
from anyio.abc import TaskGroup

from toska_gateway.worker_process import WorkerLost, WorkerProcess

log = structlog.get_logger(__name__)

_STEADY_S = 5.0
MAX_DELAY_S = 5.0


class WorkerSlot:
    """Keeps one worker serving.

    Args:
        number: Which place it is.
        launch: Starts a process; raises OSError if the system cannot.
        greet: Brings a started one to the routing in force, and returns once it listens; raises WorkerLost.
    """

    def __init__(
        self,
        number: int,
        launch: Callable[[int], Awaitable[WorkerProcess]],
        greet: Callable[[WorkerProcess], Awaitable[None]],
    ) -> None:
        self.number = number
        self._launch = launch
        self._greet = greet
        self._current: WorkerProcess | None = None
        self._others: list[WorkerProcess] = []  # a successor that is not ready yet, and those that drain
        self._changing = anyio.Lock()
        self._vacant = anyio.Event()
        self._group: TaskGroup | None = None
        self._delay = 0.0
        self._stopping = False

    @property
    def workers(self) -> list[WorkerProcess]:
        """All its processes that have not been retired, the one that serves first."""
        return [*([self._current] if self._current else []), *self._others]

    async def run(self) -> None:
        """Keep a worker serving, until stopped."""
        async with anyio.create_task_group() as self._group:
            self._vacant.set()
            while not self._stopping:
                await self._vacant.wait()
                await anyio.sleep(self._delay)
                async with self._changing:
                    if self._current is None and not self._stopping:
                        await self._fill()

    async def renew(self, drain_s: float) -> None:
        """Start a successor, and once it serves let the one before finish within `drain_s` seconds.

        Raises:
            WorkerLost: The successor does not serve; the one before goes on.
        """
        async with self._changing:
            if self._stopping:
                raise WorkerLost("the gateway stops")
            before = self._current
            try:
                successor = await self._start()
            except OSError as error:
                raise WorkerLost(f"the system starts no process: {error}") from error
            self._others.append(successor)
            self._watch(successor)
            try:
                await self._greet(successor)
            except WorkerLost:
                successor.kill()
                raise
            if successor not in self._others:
                raise WorkerLost("it ended at once")
            self._others.remove(successor)
            self._current = successor
            if before is not None and before is not successor and before.state != "dead":
                self._others.append(before)
                before.drain(drain_s)

    def stop(self, drain_s: float) -> None:
        """Start no more, and let those that are there finish within `drain_s` seconds."""
        self._stopping = True
        for worker in self.workers:
            worker.drain(drain_s)

    async def _fill(self) -> None:
        self._vacant = anyio.Event()
        try:
            worker = self._current = await self._start()
        except OSError as error:
            self._slow_down()
            log.error("gateway_worker_failed_to_start", slot=self.number, reason=str(error))
            self._vacant.set()
            return
        self._watch(worker)
        try:
            await self._greet(worker)
        except WorkerLost as error:
            log.error("gateway_worker_failed_to_start", slot=self.number, reason=str(error))
            worker.kill()

    async def _start(self) -> WorkerProcess:
        worker = await self._launch(self.number)
        if self._stopping:
            worker.kill()
        return worker

    def _watch(self, worker: WorkerProcess) -> None:
        assert self._group is not None  # noqa: S101 - nothing is started before `run`
        self._group.start_soon(self._see_off, worker)

    async def _see_off(self, worker: WorkerProcess) -> None:
        started = anyio.current_time()
        try:
            code = await worker.process.wait()
        except BaseException:
            worker.kill()
            raise
        if worker in self._others:
            self._others.remove(worker)
            log.info("gateway_worker_left", slot=self.number, pid=worker.process.pid, exit_code=code)
            return
        if worker is not self._current:
            return
        self._current = None
        if self._stopping:
            return
        log.warning("gateway_worker_ended", slot=self.number, pid=worker.process.pid, exit_code=code)
        # One that was told to end and has (0) is no crash, however young: what is queued for it should not wait.
        if code == 0 or anyio.current_time() - started > _STEADY_S:
            self._delay = 0.0
        else:
            self._slow_down()
        self._vacant.set()

    def _slow_down(self) -> None:
        self._delay = min(MAX_DELAY_S, self._delay * 2 + 0.05)

"""Keeps one Envoy running: when it ends it is started anew, after a delay that grows if it must.

vacant ──▶ started ──▶ running ──ends by itself──▶ vacant (at once, or after a growing delay if it keeps dying)
                          └──▶ succeeded: the successor serves on the same address, and ends this one when it has
                               drained for long enough; nobody else may, or the successor looks for it until it aborts
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup
from toska_common.errors import UpstreamUnavailable

from toska_gateway.envoy.admin_socket import AdminSocket
from toska_gateway.envoy.bootstrap import bootstrap
from toska_gateway.envoy.folder import RuntimeFolder
from toska_gateway.envoy.process import EnvoyLost, EnvoyProcess, Turn

log = structlog.get_logger(__name__)

MAX_DELAY_S: Final = 5.0
_STEADY_S: Final = 5.0
_LOOK_S: Final = 0.02
_LEAST_GRACE_S: Final = 0.2
_LATE_S: Final = 10.0
"""How long after its time a process that was succeeded is waited for, should its successor have died."""


class EnvoySlot:
    """The place of an Envoy.

    Args:
        binary: The program.
        folder: Of its own files.
        ads: The socket that it is told over what to do.
        node: What its name begins with.
        threads: How many move requests.
        drain_s: Seconds that an old configuration's connections, or an old process, have to finish.
    """

    def __init__(
        self, binary: Path, folder: RuntimeFolder, ads: Path, node: str, *, threads: int, drain_s: float
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._ads = ads
        self._node = node
        self._threads = threads
        self._drain_s = drain_s
        self._serial = 0
        self._stopping = False
        self._group: TaskGroup | None = None
        self._delay = 0.0
        self.current: EnvoyProcess | None = None
        self._draining: list[EnvoyProcess] = []
        self.on_start: Callable[[], None] = _nothing

    @property
    def processes(self) -> list[EnvoyProcess]:
        """All of them, the one that serves first."""
        return [*([self.current] if self.current else []), *self._draining]

    async def run(self, group: TaskGroup) -> EnvoyProcess:
        """Start one and keep one running in `group`; returns the first once it serves.

        Raises:
            EnvoyLost: It does not come up.
        """
        self._group = group
        first = self.current = await self._start()
        group.start_soon(self._keep)
        return first

    async def _keep(self) -> None:
        while not self._stopping:
            process = self.current
            if process is None:
                await anyio.sleep(self._delay)
                try:
                    self.current = await self._start()
                except (EnvoyLost, OSError) as error:
                    self._slow_down()
                    log.error("envoy_failed_to_start", reason=str(error))
                continue
            started = anyio.current_time()
            code = await process.process.wait()
            if process is not self.current:
                continue  # it was succeeded
            self.current = None
            if self._stopping:
                return
            log.warning("envoy_ended", pid=process.process.pid, exit_code=code, said=process.complaint())
            if anyio.current_time() - started > _STEADY_S:
                self._delay = 0.0
            else:
                self._slow_down()

    async def renew(self) -> EnvoyProcess:
        """Start a successor on the same addresses; once it serves, let the one before finish.

        Waits for a renewal before this one to be over: a process that has a successor ends the one before it at once.

        Raises:
            EnvoyLost: The successor does not serve; the one before goes on.
        """
        while self._draining:  # noqa: ASYNC110 - seldom, and it is another process that ends it
            await anyio.sleep(_LOOK_S)
        before = self.current
        if before is None:
            raise EnvoyLost("the one before has ended, and another is being started")
        successor = await self._start(before.turn.next if before.state != "dead" else None)
        self.current = successor
        if self._group is not None:
            self._draining.append(before)
            self._group.start_soon(self._outlast, before)
        return successor

    async def stop(self, drain_s: float) -> None:
        """Let it finish within `drain_s` seconds, and end it."""
        self._stopping = True
        async with anyio.create_task_group() as group:
            for process in self.processes:
                group.start_soon(self._see_off, process, drain_s)

    async def _start(self, turn: Turn | None = None) -> EnvoyProcess:
        assert self._group is not None  # noqa: S101 - nothing is started before `run`
        self._serial += 1
        socket = self._folder.path / f"admin-{self._serial}.sock"
        config = self._folder.path / f"envoy-{self._serial}.json"
        turn = turn or Turn.first()
        self._folder.note(turn.family)
        node = f"{self._node}-{self._serial}"
        config.write_text(json.dumps(bootstrap(self._ads, socket, node)))
        process = EnvoyProcess.start(
            self._binary,
            config,
            node,
            AdminSocket(socket),
            turn,
            threads=self._threads,
            drain_s=self._drain_s,
        )
        self._group.start_soon(self._listen, process)
        try:
            await process.until_live()
        except BaseException:
            process.kill()
            raise
        self.on_start()
        return process

    async def _listen(self, process: EnvoyProcess) -> None:
        try:
            await process.listen_to()
        finally:
            process.kill()
            with anyio.CancelScope(shield=True):
                await process.process.wait()
                await process.admin.aclose()

    async def _outlast(self, process: EnvoyProcess) -> None:
        """Have it close its connections with their next answers, and wait until its successor has ended it."""
        process.state = "draining"
        with contextlib.suppress(UpstreamUnavailable):
            await process.drain()
        with anyio.move_on_after(self._drain_s + _LATE_S):
            await process.process.wait()
        await self._end(process)

    async def _see_off(self, process: EnvoyProcess, drain_s: float) -> None:
        """Have it stop accepting, wait until nothing is in flight, and end it."""
        process.state = "draining"
        with anyio.move_on_after(drain_s):
            try:
                await process.drain()
                # A connection that is idle may have a request on its way.
                idle_until = anyio.current_time() + max(_LEAST_GRACE_S, drain_s / 10)
                while process.process.returncode is None:
                    connections, requests = await process.in_flight()
                    if not connections or (not requests and anyio.current_time() > idle_until):
                        break
                    await anyio.sleep(_LOOK_S)
            except UpstreamUnavailable:
                pass  # it has ended, or is beyond help
        await self._end(process)

    async def _end(self, process: EnvoyProcess) -> None:
        process.terminate()
        with anyio.move_on_after(1):
            await process.process.wait()
        process.kill()
        await process.process.wait()
        if process in self._draining:
            self._draining.remove(process)

    def _slow_down(self) -> None:
        self._delay = min(MAX_DELAY_S, self._delay * 2 + 0.05)


def _nothing() -> None:
    """Until somebody wants to know."""

"""Child processes of a server, started by the standard library and never by its event loop.

uvloop forks, and runs the parent's at-fork handlers in the child before exec. In a process of many threads (gRPC's,
for one) the child can wait for a lock that a thread held when it was forked, and the parent waits for its exec with
the whole loop; others end there with an exit code of their own. `subprocess` runs nothing of ours between fork and
exec.
"""

import contextlib
import os
import signal
import subprocess
import sys
from asyncio import Future, get_running_loop
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import anyio

_CHUNK_BYTES = 65_536


class ChildProcess:
    """A started process, noticed and reaped as soon as it ends.

    Attributes:
        pid: Its id, which stays its own until `returncode` is known.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._ended = anyio.Event()
        loop = get_running_loop()
        if sys.platform == "linux":
            handle = os.pidfd_open(process.pid)
            loop.add_reader(handle, self._on_end, handle)
        else:
            waiting = loop.run_in_executor(None, process.wait)
            waiting.add_done_callback(self._on_waited)

    @property
    def returncode(self) -> int | None:
        """Its exit code, -N if signal N ended it, `None` while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended; returns `returncode`."""
        await self._ended.wait()
        return self._process.wait()

    async def output(self) -> AsyncIterator[bytes]:
        """What it writes to standard output, as it comes, until all who hold that have closed it."""
        if self._process.stdout is None:
            raise ValueError("started without stdout=PIPE")
        descriptor = self._process.stdout.fileno()
        os.set_blocking(descriptor, False)
        with self._process.stdout:
            while True:
                try:
                    chunk = os.read(descriptor, _CHUNK_BYTES)
                except BlockingIOError:
                    await anyio.wait_readable(descriptor)
                    continue
                if not chunk:
                    return
                yield chunk

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def kill_session(self) -> None:
        """End at once all that it has started and, if it still runs, it (of `start_new_session`); waits for its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await self.wait()

    def _on_end(self, handle: int) -> None:
        get_running_loop().remove_reader(handle)
        os.close(handle)
        self._process.poll()
        self._ended.set()

    def _on_waited(self, _: Future[int]) -> None:
        self._ended.set()


def start_child(
    command: Sequence[str | Path],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    start_new_session: bool = False,
) -> ChildProcess:
    """Start a program; the arguments are those of `subprocess.Popen`.

    Raises:
        OSError: The system does not start it.
        ValueError: The command cannot be one, such as with a NUL in it.
    """
    process = subprocess.Popen(  # noqa: S603 - what is run is for the caller to judge
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        pass_fds=pass_fds,
        start_new_session=start_new_session,
    )
    return ChildProcess(process)

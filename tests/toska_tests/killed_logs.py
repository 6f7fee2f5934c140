"""An embedded log in a process of its own, which can be killed and has a successor within milliseconds."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

from toska_common.credentials import ensure_credentials
from toska_common.events.opening import open_transport
from toska_common.events.transport import Transport

from toska_tests.waiting import wait_until

_PROGRAM = Path(__file__).with_name("log_nursery.py")


class KilledLog:
    """A log's process, at most one at a time."""

    def __init__(self, home: Path, nursery: "subprocess.Popen[str]") -> None:
        self.home = home
        self._nursery = nursery
        self._lines: list[str] = []
        self.pid = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def connect(self) -> AbstractAsyncContextManager[Transport]:
        """Reach it as any other process would."""
        return open_transport("embedded://", home=self.home, token=ensure_credentials(self.home).admin, service="tests")

    async def start(self, *, dying_at: int = 0) -> None:
        """Start a server; `dying_at` is the statement before which it kills itself."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(f"{dying_at} {self.home}\n")
        self._nursery.stdin.flush()
        await wait_until(lambda: bool(self._lines), every=0.002, what="the log's process")
        self.pid = int(self._lines.pop(0))

    def kill(self) -> None:
        """Kill it as the kernel does when memory is short; `ended` waits."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it is gone."""
        await wait_until(lambda: bool(self._lines), every=0.002, what="the log's process to end")
        assert self._lines.pop(0) == "ended"
        self.pid = 0

    def _listen(self) -> None:
        assert self._nursery.stdout is not None
        with contextlib.suppress(ValueError):  # closed, at the end
            for line in self._nursery.stdout:
                self._lines.append(line.strip())


@contextmanager
def killed_log(home: Path) -> Generator[KilledLog]:
    """A nursery of logs over `home`; whatever it started is gone when the block ends."""
    environment = {**os.environ, "PYTHONPATH": str(_PROGRAM.parents[1])}
    nursery = subprocess.Popen(
        [sys.executable, str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    log = KilledLog(home, nursery)
    try:
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(nursery.pid, signal.SIGKILL)
        nursery.wait(timeout=30)
        for pipe in (nursery.stdin, nursery.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

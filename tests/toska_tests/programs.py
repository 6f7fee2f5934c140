"""Running real programs in tests: with a deadline on every wait, their output kept, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil
from anyio.to_thread import run_sync

from toska_tests.waiting import PATIENT_S, wait_until


class Program:
    """A started program; its output goes to files, so that no full pipe can block it."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        self._process = process
        self._output = output
        self._errors = errors

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; `None` while it runs."""
        return self._process.poll()

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole process group, as a terminal sends it."""
        os.killpg(self.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self._process.send_signal(number)

    def descendants(self) -> list[psutil.Process]:
        """Every process below it, while it runs."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def exit_code(self, within: float = PATIENT_S) -> int:
        """Wait for its end.

        Raises:
            AssertionError: It still runs after `within` seconds.
        """
        await wait_until(lambda: self.returncode is not None, within=within, what=f"{self._process.args} ends")
        assert self.returncode is not None
        return self.returncode

    async def line(self, within: float = PATIENT_S) -> str:
        """Wait for its first whole line on standard output.

        Raises:
            AssertionError: It ended, or `within` seconds passed, without one.
        """

        def has_line() -> bool:
            if "\n" in self.stdout:
                return True
            assert self.returncode is None, f"ended with {self.returncode} and no line:\n{self.stderr}"
            return False

        await wait_until(has_line, within=within, what=f"a line on stdout; stderr: {self.stderr[-2000:]}")
        return self.stdout.partition("\n")[0]


async def finished(
    command: Sequence[str | Path], *, cwd: Path | None = None, within: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, beside the loop, and keep what it writes.

    Raises:
        TimeoutExpired: It still ran after `within` seconds, and was killed.
    """
    run = partial(subprocess.run, command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=within)
    return await run_sync(partial(run, check=False))


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], folder: Path, *, environment: Mapping[str, str] | None = None
) -> Generator[Program]:
    """Run `command` in `folder` until the block ends, when it and everything below it is killed.

    `environment` is added to the test's own; an empty value takes a variable away.
    """
    logs = folder / ".programs"
    logs.mkdir(exist_ok=True)
    number = len(list(logs.iterdir())) // 2
    name = Path(command[0]).name
    output, errors = logs / f"{number:02}-{name}.out", logs / f"{number:02}-{name}.err"
    merged = {key: value for key, value in {**os.environ, **(environment or {})}.items() if value}
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=merged,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    program = Program(process, output, errors)
    try:
        yield program
    finally:
        family = program.descendants()
        process.kill()
        process.wait(timeout=PATIENT_S)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=PATIENT_S)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie has ended."""
    found: list[psutil.Process] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found

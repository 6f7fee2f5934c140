"""Processes a bench starts: pinned to their cores, ended on every way out, and asked what they cost.

Each has a session of its own and the death signal of the kernel, so that none survives the bench, not even its SIGKILL.
"""

import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import BenchError
from benchmarks.machine import TICKS

_START_S = 20.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """A started program with all its descendants."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> dict[int, float]:
        """Processor time so far of each process of the tree, user and system."""
        return {pid: _cpu_seconds(pid) for pid in _tree(self.process.pid)}

    def thread_seconds(self) -> dict[int, float]:
        """Processor time so far of each thread of the tree, user and system."""
        tasks = [task for pid in _tree(self.process.pid) for task in Path(f"/proc/{pid}/task").iterdir()]
        return {int(task.name): _stat_seconds(task / "stat") for task in tasks}

    def pss_bytes(self) -> int:
        """Memory of the whole tree, shared pages counted once in all (proportional set size)."""
        return sum(_pss_bytes(pid) for pid in _tree(self.process.pid))

    def check_alive(self) -> None:
        """Raise with the end of its log if the program has ended."""
        if (status := self.process.poll()) is not None:
            raise BenchError(f"{self.name} ended with status {status}\n{self.log_end()}")

    def log_end(self) -> str:
        """The last lines of what it has printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    folder: Path,
    cores: Iterable[int],
    environment: dict[str, str] | None = None,
) -> Generator[Running]:
    """Start a program on these cores and end it, children included, when the block is left."""
    log = folder / f"{name}.log"
    pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned,
            cwd=folder,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(name, process, log)
    finally:
        _stop(process)


def wait_until_answering(
    target: Running,
    port: int,
    path: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    tls: bool = False,
) -> bytes:
    """Ask until the answer has this status; returns its body.

    Raises:
        BenchError: The program ended, or its time is up.
    """
    deadline = time.monotonic() + _START_S
    seen = "no answer"
    while time.monotonic() < deadline:
        target.check_alive()
        try:
            answered, body = fetch(port, path, headers, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        else:
            if answered == status:
                return body
            seen = f"status {answered}: {body[:200]!r}"
        time.sleep(0.02)
    raise BenchError(f"{target.name} does not answer {path} with {status} within {_START_S:.0f} s ({seen})")


def fetch(port: int, path: str, headers: dict[str, str] | None = None, *, tls: bool = False) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # signed by itself, a moment ago
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def allow_open_files(count: int) -> None:
    """Let this process, and those it starts from now on, have that many files open.

    Raises:
        BenchError: The machine's limit is lower.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        raise BenchError(f"{count:,} open files are needed, and the limit is {most:,} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    with suppress(ProcessLookupError):  # the session is ours alone: whatever is left in it goes now
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found.extend(map(int, children.read_text().split()))
    return found


def _cpu_seconds(pid: int) -> float:
    return _stat_seconds(Path(f"/proc/{pid}/stat"))


def _stat_seconds(file: Path) -> float:
    fields = file.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0

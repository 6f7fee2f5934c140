"""`toska up` as a newcomer meets it: how long until it answers, what it weighs, how long it takes to leave.

Each round starts in a folder of its own, on all cores, with the examples. Files are in the page cache after the first
round, as they are for anybody who starts it twice.
"""

import http.client
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.machine import Cores
from benchmarks.parts import get_script
from benchmarks.processes import Running, fetch, running
from benchmarks.report import Figures, Outcome, progress_bar, show

MESH_PATH = "/api/v1/services"
"""Answered by discovery through the gateway."""
EXAMPLE_PATH = "/orders/42"
"""Answered by an example, which calls another one for it."""

_PATIENCE_S = 30.0
_SETTLE_S = 3.0
_PORTS = 40


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int


class Start(Record):
    """One `toska up`. Times are from the start of its process; memory is of all its processes, shared pages once."""

    mesh_s: float
    example_s: float
    cpu_s: float
    pss_mib: float
    processes: int
    stop_s: float


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Start and stop the mesh, round after round.

    Raises:
        BenchError: It did not come up, or did not leave by itself.
    """
    starts: list[Start] = []
    with progress_bar(console) as progress:
        bar = progress.add_task("toska up", total=options.rounds)
        for _ in range(options.rounds):
            starts.append(_measure(cores))
            progress.advance(bar)
    table = _table(starts)
    show(console, table)
    return Outcome([table], asdict(options), {"starts": [start.model_dump() for start in starts]})


def _measure(cores: Cores) -> Start:
    base = _free_block()
    command = [get_script("toska").path, "up", "--ports-from", str(base), "--json"]
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        environment = {"TOSKA_HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state")}
        began = time.monotonic()
        mesh = stack.enter_context(
            running("toska-up", command, folder=folder, cores=(cores.measured, *cores.load), environment=environment)
        )
        mesh_s = _until_answered(mesh, base, MESH_PATH) - began
        example_s = _until_answered(mesh, base, EXAMPLE_PATH) - began
        cpu_s = sum(mesh.cpu_seconds().values())
        time.sleep(_SETTLE_S)
        mesh.check_alive()
        pss, processes = mesh.pss_bytes(), len(mesh.cpu_seconds())
        leaving = time.monotonic()
        mesh.process.send_signal(signal.SIGINT)
        try:
            mesh.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"toska up does not leave within {_PATIENCE_S:.0f} s of Ctrl-C") from error
        return Start(
            mesh_s=mesh_s,
            example_s=example_s,
            cpu_s=cpu_s,
            pss_mib=pss / 2**20,
            processes=processes,
            stop_s=time.monotonic() - leaving,
        )


def _until_answered(mesh: Running, port: int, path: str) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    seen = ""
    while time.monotonic() < deadline:
        mesh.check_alive()
        try:
            status, body = fetch(port, path)
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        else:
            if status == 200:
                return time.monotonic()
            seen = f"status {status}: {body[:200]!r}"
        time.sleep(0.01)
    raise BenchError(f"toska up does not answer {path} within {_PATIENCE_S:.0f} s ({seen})\n{mesh.log_end()}")


def _free_block() -> int:
    """The first of a row of free ports, below those that the kernel gives to clients."""
    for _ in range(50):
        base = random.randrange(20_000, 31_000, _PORTS)
        with ExitStack() as stack:
            try:
                for port in range(base, base + _PORTS):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise BenchError("no free row of ports between 20000 and 31000")


def _table(starts: list[Start]) -> Figures:
    def row(title: str, value: Callable[[Start], float], unit: str, digits: int = 2) -> tuple[str, ...]:
        values = [value(start) for start in starts]
        low, middle, high = (f"{figure:.{digits}f} {unit}" for figure in (min(values), median(values), max(values)))
        return title, middle, low, high

    return Figures(
        "toska up, with the examples",
        ("", "median", "lowest", "highest"),
        [
            row("first 200 of the mesh through the gateway", lambda start: start.mesh_s, "s"),
            row("first 200 of an example through the gateway", lambda start: start.example_s, "s"),
            row("processor time until then, all processes", lambda start: start.cpu_s, "s"),
            row("memory of all processes (PSS)", lambda start: start.pss_mib, "MiB", 0),
            row("processes", lambda start: start.processes, "", 0),
            row("from Ctrl-C to the end", lambda start: start.stop_s, "s"),
        ],
        emphasis="first 200",
    )

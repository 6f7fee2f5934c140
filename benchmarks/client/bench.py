"""The bench of clients, from options to tables: each kind in a process of its own, in interleaved rounds."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import BenchError
from benchmarks.client.caller import KINDS, Called
from benchmarks.discovery.registries import TOSKA
from benchmarks.figures import Spread, ratio
from benchmarks.machine import Cores
from benchmarks.parts import ROOT, get_program
from benchmarks.processes import free_ports, running, wait_until_answering
from benchmarks.profiles import PROFILES
from benchmarks.proxies.nginx import STATUS_PATH, upstream_command
from benchmarks.report import Figures, Outcome, progress_bar, show

_REFERENCE = "httpx"
_CHECK = {"TTL": "3600s", "Status": "passing"}
_COLUMNS = ("client", "calls/s", "p50 ms", "p99 ms", "µs CPU/call", "of httpx's")


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int
    seconds: int
    connections: int


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure every kind of client, one call at a time and many at once."""
    tables: list[Figures] = []
    figures: dict[str, object] = {}
    nginx = get_program("nginx")
    ports = (*free_ports(1),)
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as place:
        folder = Path(place)
        command = upstream_command(nginx, folder, ports, PROFILES["bare"])
        with (
            running("upstream", command, folder=folder, cores=cores.load, environment=nginx.environment) as upstream,
            _registry(folder, ports[0], cores) as registry_url,
        ):
            wait_until_answering(upstream, ports[0], STATUS_PATH)
            caller = _Caller(f"http://127.0.0.1:{ports[0]}", registry_url, cores.measured, options.seconds)
            for concurrency in (1, options.connections):
                called = _rounds(console, caller, options.rounds, concurrency)
                tables.append(_table(called, concurrency))
                show(console, tables[-1])
                figures[str(concurrency)] = {kind: [one.model_dump() for one in each] for kind, each in called.items()}
    return Outcome(tables, asdict(options), figures)


@contextmanager
def _registry(folder: Path, port: int, cores: Cores) -> Generator[str]:
    """A registry that knows the upstream as `payments`; yields its URL."""
    started = TOSKA.start(folder)
    with running("registry", started.command, folder=folder, cores=cores.load, environment=started.environment) as own:
        wait_until_answering(own, started.port, "/v1/status/leader")
        answer = httpx.put(
            f"http://127.0.0.1:{started.port}/v1/agent/service/register",
            json={"Name": "payments", "Address": "127.0.0.1", "Port": port, "Check": _CHECK},
            headers={"X-Consul-Token": TOSKA.token(folder)},
        )
        if answer.status_code != 200:
            raise BenchError(f"the registry answers {answer.status_code}: {answer.text[:200]}")
        yield f"http://127.0.0.1:{started.port}"


@dataclass(frozen=True, slots=True)
class _Caller:
    """Runs the measured process."""

    url: str
    registry_url: str
    core: int
    seconds: int

    def call(self, kind: str, concurrency: int) -> Called:
        command = [
            *("setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(self.core)),
            *(sys.executable, "-m", "benchmarks.client.caller", kind, self.url, str(self.seconds), str(concurrency)),
        ]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"TOSKA_REGISTRY_URL": self.registry_url},
                capture_output=True,
                text=True,
                timeout=self.seconds + 30,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{kind}: did not end in time") from error
        if done.returncode:
            raise BenchError(f"{kind}: {done.stderr.strip()[-800:]}")
        return Called.model_validate_json(done.stdout.splitlines()[-1])


def _rounds(console: Console, caller: _Caller, rounds: int, concurrency: int) -> dict[str, list[Called]]:
    called: dict[str, list[Called]] = {kind: [] for kind in KINDS}
    with progress_bar(console) as progress:
        bar = progress.add_task("", total=rounds * len(KINDS))
        for number in range(1, rounds + 1):
            for kind in KINDS:
                progress.update(bar, description=f"{concurrency} at a time, round {number}: {kind}")
                called[kind].append(caller.call(kind, concurrency))
                progress.advance(bar)
    return called


def _table(called: dict[str, list[Called]], concurrency: int) -> Figures:
    cpu = {kind: [each.cpu_seconds * 1e6 / each.calls for each in taken] for kind, taken in called.items()}
    rows: list[tuple[str, ...]] = []
    for kind, taken in called.items():
        spent = Spread.of(cpu[kind])
        rows.append(
            (
                kind,
                f"{Spread.of([each.calls / each.seconds for each in taken]).median:,.0f}",
                f"{Spread.of([each.p50_ms for each in taken]).median:.2f}",
                f"{Spread.of([each.p99_ms for each in taken]).median:.2f}",
                f"{spent.median:.0f} ±{spent.noise:.0%}",
                f"{ratio(cpu[kind], cpu[_REFERENCE]).median:.2f}",
            )
        )
    return Figures(f"Calls to another service, {_how_many(concurrency)}", _COLUMNS, rows, emphasis="mesh.client")


def _how_many(concurrency: int) -> str:
    return "one at a time" if concurrency == 1 else f"{concurrency} at a time"

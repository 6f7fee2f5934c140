"""Rate limits by themselves: what a take costs in each scope, and what millions of keys weigh."""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from toska_common.balancing.base import hash_of
from toska_gateway.shared_memory import open_shared_memory
from toska_gateway.worker.allowances import DEFAULT_ENTRIES, Allowances, size_of
from toska_gateway.worker.mesh_allowances import MeshAllowances, as_text

from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.parts import get_program
from benchmarks.processes import free_ports, running
from benchmarks.report import Figures, Outcome, progress_bar, show

_TAKES = 100_000
_KEYS = 1_000_000, 2_000_000, 4_000_000
_BATCHES = (1, 8, 64, 512)
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure takes in every scope."""
    local: dict[str, list[float]] = {"worker": [], "machine": []}
    mesh: dict[int, list[tuple[float, float]]] = {size: [] for size in _BATCHES}
    with progress_bar(console) as progress, ExitStack() as stack:
        bar = progress.add_task("rate limits", total=options.rounds + 1)
        (port,) = free_ports(1)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toska-bench-")))
        server = get_program("redis-server")
        command = [server.path, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        stack.enter_context(running("redis", command, folder=folder, cores=cores.load, environment=server.environment))
        os.sched_setaffinity(0, {cores.measured})
        for _ in range(options.rounds):
            local["worker"].append(_per_take(Allowances()))
            descriptor = open_shared_memory(size_of(DEFAULT_ENTRIES))
            local["machine"].append(_per_take(Allowances(descriptor=descriptor)))
            os.close(descriptor)
            for size, found in _ask_redis(port).items():
                mesh[size].append(found)
            progress.advance(bar)
        weights = [_weigh(keys) for keys in _KEYS]
        progress.advance(bar)
    tables = [_local_table(local), _mesh_table(mesh), _weight_table(weights)]
    for table in tables:
        show(console, table)
    figures: dict[str, object] = {name: Spread.of(values).model_dump() for name, values in local.items()}
    figures |= {f"mesh_cpu_{size}": Spread.of([cpu for cpu, _ in found]).model_dump() for size, found in mesh.items()}
    return Outcome(
        tables, asdict(options), figures | {"mib_and_crowded": dict(zip(map(str, _KEYS), weights, strict=True))}
    )


def _key(number: int) -> int:
    return hash_of(b"%d" % number) | 1 << 63


def _per_take(table: Allowances) -> float:
    keys = [_key(number % 1000) for number in range(_TAKES)]
    now, began = time.monotonic(), time.process_time()
    for key in keys:
        table.take(key, 0.01, 1.0, now)
    return (time.process_time() - began) / _TAKES


def _ask_redis(port: int) -> dict[int, tuple[float, float]]:
    """By number of takes under way at once: seconds of CPU for each, and seconds until one is answered."""

    async def measure() -> dict[int, tuple[float, float]]:
        loop, connected = asyncio.get_running_loop(), asyncio.Event()
        link = MeshAllowances(loop, f"redis://127.0.0.1:{port}/0", lambda level, event, fields: None)
        link.start(connected.set)
        async with asyncio.timeout(10):
            await connected.wait()
        found: dict[int, tuple[float, float]] = {}
        for size in _BATCHES:
            rounds = max(20, 8_000 // size)
            cpu, began = time.process_time(), time.perf_counter()
            for _ in range(rounds):
                await asyncio.gather(*(_answer(link, _key(number)) for number in range(size)))
            found[size] = (time.process_time() - cpu) / rounds / size, (time.perf_counter() - began) / rounds
        await link.stop()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


def _answer(link: MeshAllowances, key: int) -> "asyncio.Future[float | None]":
    future: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
    link.ask(key, as_text(0.001), as_text(_HOUR), future.set_result)
    return future


def _weigh(keys: int) -> tuple[float, int]:
    """MiB of a table with so many keys in use, and how many of them had to make room for others."""
    descriptor = open_shared_memory(size_of(DEFAULT_ENTRIES))
    table, now = Allowances(descriptor=descriptor), time.monotonic()
    for number in range(keys):
        table.take(_key(number), 1.0, _HOUR, now)
    blocks = os.fstat(descriptor).st_blocks
    os.close(descriptor)
    return blocks * 512 / 2**20, table.crowded


def _local_table(local: dict[str, list[float]]) -> Figures:
    rows = [(name, f"{Spread.of(values).median * 1e6:.2f}") for name, values in local.items()]
    return Figures("A take on this machine, 1,000 keys", ("scope", "µs CPU"), rows)


def _mesh_table(mesh: dict[int, list[tuple[float, float]]]) -> Figures:
    rows = [
        (
            f"{size} at once",
            f"{Spread.of([cpu for cpu, _ in found]).median * 1e6:.1f}",
            f"{Spread.of([wait for _, wait in found]).median * 1e3:.2f}",
        )
        for size, found in mesh.items()
    ]
    return Figures("A take at mesh scope, Redis on this machine", ("takes", "µs CPU each", "ms until answered"), rows)


def _weight_table(weights: Sequence[tuple[float, int]]) -> Figures:
    rows = [
        (f"{keys:,} keys in use", f"{mib:.0f}", f"{crowded / keys:.1%}")
        for keys, (mib, crowded) in zip(_KEYS, weights, strict=True)
    ]
    return Figures("Memory of a table", ("", "MiB", "keys that made room"), rows)

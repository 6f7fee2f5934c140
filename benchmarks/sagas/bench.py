"""Sagas of three steps that do nothing, so that all that is measured is what it costs to survive everything.

Each contestant is a process of its own on the measured core, with a new database each time; PostgreSQL is on the other
core. A saga of ours also writes for people what it does, checks before each step that no other process took it over,
and can be undone; a bare workflow only remembers what its steps gave.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import BenchError
from benchmarks.figures import Spread, ratio
from benchmarks.machine import Cores
from benchmarks.parts import ROOT
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.rigs import folder, postgresql
from benchmarks.sagas.pacing import Pace, Paces

BARE, OURS = "DBOS", "toska"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
_MODULES = {BARE: "benchmarks.sagas.bare", OURS: "benchmarks.sagas.ours"}
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run: sagas one after the other and as many at once, and how many of them at a time."""

    rounds: int
    sagas: int
    at_once: int


@dataclass(slots=True)
class _Costs:
    alone: list[Pace] = field(default_factory=list[Pace])
    together: list[Pace] = field(default_factory=list[Pace])


Found = dict[tuple[str, str], _Costs]


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure both on both databases in turn, some rounds long."""
    found: Found = {(store, name): _Costs() for store in (SQLITE, POSTGRESQL) for name in (BARE, OURS)}
    uvloop.run(_rounds(console, options, cores, found))
    tables = [_table(found, options, at_once=at_once) for at_once in (False, True)]
    for table in tables:
        show(console, table)
    figures: dict[str, object] = {
        f"{name}, {store}": {
            "alone": [one.model_dump() for one in costs.alone],
            "together": [one.model_dump() for one in costs.together],
        }
        for (store, name), costs in found.items()
    }
    return Outcome(tables, asdict(options), figures)


async def _rounds(console: Console, options: Options, cores: Cores, found: Found) -> None:
    async with postgresql(cores.load) as postgres:
        with progress_bar(console) as progress:
            bar = progress.add_task("sagas", total=options.rounds * len(found))
            for _ in range(options.rounds):
                for (store, name), costs in found.items():
                    async with _database(store, postgres) as url:
                        paces = await asyncio.to_thread(_measure, name, url, options, cores.measured)
                    costs.alone.append(paces.alone)
                    costs.together.append(paces.together)
                    progress.advance(bar)


@asynccontextmanager
async def _database(store: str, postgres: Any) -> AsyncGenerator[str]:
    if store == POSTGRESQL:
        yield await postgres.make_database()
        return
    with folder("sagas") as made:
        yield f"sqlite://{made}"


def _measure(name: str, url: str, options: Options, core: int) -> Paces:
    command = ["taskset", "-c", str(core), sys.executable, "-m", _MODULES[name]]
    done = subprocess.run(
        [*command, url, str(options.sagas), str(options.at_once)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{name} ended with status {done.returncode}\n{done.stderr[-2000:]}")
    return Paces.model_validate_json(done.stdout.splitlines()[-1])


def _table(found: Found, options: Options, *, at_once: bool) -> Figures:
    rows: list[tuple[str, ...]] = []
    for (store, name), costs in found.items():
        mine = costs.together if at_once else costs.alone
        bare = found[(store, BARE)].together if at_once else found[(store, BARE)].alone
        rows.append(
            (
                f"{name}: {store}",
                f"{_median(mine, 'steps_per_second'):,.0f}",
                f"{_median(mine, 'p50_ms'):.1f}",
                f"{_median(mine, 'p99_ms'):.1f}",
                f"{_median(mine, 'cpu_ms'):.1f}",
                f"{ratio(_all(mine, 'steps_per_second'), _all(bare, 'steps_per_second')).median:.2f}",
                f"{ratio(_all(mine, 'cpu_ms'), _all(bare, 'cpu_ms')).median:.2f}",
            )
        )
    how = f"{options.at_once} at once" if at_once else "one after the other"
    columns = ("", "steps/s", "p50 ms", "p99 ms", "ms of CPU each", "of DBOS's rate", "of its CPU")
    return Figures(f"Sagas of three steps, {how}", columns, rows)


def _all(paces: list[Pace], name: str) -> list[float]:
    return [getattr(one, name) for one in paces]


def _median(paces: list[Pace], name: str) -> float:
    return Spread.of(_all(paces, name)).median

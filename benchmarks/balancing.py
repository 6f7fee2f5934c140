"""The balancers by themselves: how long a pick takes, and how long it takes to build one, by number of endpoints."""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from toska_common.balancing import (
    Balancer,
    LatencyAverage,
    LeastRequest,
    Maglev,
    PeakEwma,
    Random,
    RingHash,
    RoundRobin,
)

from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.report import Figures, Outcome, progress_bar, show

SIZES = (10, 100, 1_000, 10_000, 100_000)
_PICKS = 20_000
_KINDS: dict[str, Callable[..., Balancer["Endpoint"]]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "least_request": LeastRequest,
    "peak_ewma": PeakEwma,
    "ring_hash": RingHash,
    "maglev": Maglev,
}


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int


@dataclass(eq=False, slots=True)
class Endpoint:
    """What a balancer needs to know."""

    key: str
    weight: int
    in_flight: int = 0
    latency: LatencyAverage = field(default_factory=LatencyAverage)


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure every balancer at every size."""
    os.sched_setaffinity(0, {cores.measured})
    picks: dict[tuple[str, int], list[float]] = {}
    builds: dict[tuple[str, int], list[float]] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("balancers", total=options.rounds * len(SIZES) * len(_KINDS))
        for _ in range(options.rounds):
            for size in SIZES:
                endpoints = _endpoints(size)
                for name, kind in _KINDS.items():
                    began = time.process_time()
                    balancer = kind(endpoints)
                    builds.setdefault((name, size), []).append(time.process_time() - began)
                    picks.setdefault((name, size), []).append(_per_pick(balancer))
                    progress.advance(bar)
    tables = [
        _table("µs of CPU a pick, by number of endpoints", picks, 1e6, 2),
        _table("ms of CPU to build one, by number of endpoints", builds, 1e3, 1),
    ]
    for table in tables:
        show(console, table)
    figures: dict[str, object] = {
        f"{what}_{name}_{size}": Spread.of(values).model_dump()
        for what, found in (("pick_s", picks), ("build_s", builds))
        for (name, size), values in found.items()
    }
    return Outcome(tables, asdict(options), figures)


def _endpoints(size: int) -> list[Endpoint]:
    chance = random.Random(size)
    endpoints = [Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80", chance.choice((1, 1, 2))) for n in range(size)]
    for endpoint in endpoints:
        endpoint.in_flight = chance.randrange(8)
        endpoint.latency.observe(chance.uniform(0.001, 0.1), 0.0)
    return endpoints


def _per_pick(balancer: Balancer[Endpoint]) -> float:
    chance = random.Random(1)
    keys = [chance.getrandbits(64) for _ in range(_PICKS)]
    pick = balancer.pick
    began = time.process_time()
    for key in keys:
        pick(None, key, 1.0)
    return (time.process_time() - began) / _PICKS


def _table(title: str, found: dict[tuple[str, int], list[float]], scale: float, digits: int) -> Figures:
    def row(name: str) -> Sequence[str]:
        return [f"{Spread.of(found[name, size]).median * scale:.{digits}f}" for size in SIZES]

    return Figures(title, ("balancer", *(f"{size:,}" for size in SIZES)), [(name, *row(name)) for name in _KINDS])

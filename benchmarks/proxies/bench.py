"""The bench of the data plane, from options to tables."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED
from benchmarks.profiles import PROFILES
from benchmarks.proxies import bodies, hits, idle, limit, rate, secured, workers
from benchmarks.proxies.comparison import Options, ProfileFigures, compare
from benchmarks.proxies.tables import table
from benchmarks.report import Figures, Outcome, progress_bar, show

_FEWER_ROUNDS = 3
"""Of the parts whose figures lie far from one another."""


@dataclass(slots=True)
class _Bench:
    """One run: what it is to measure, and what has been found so far; each table is shown when it is there."""

    console: Console
    options: Options
    cores: Cores
    folder: Path
    profiles: Sequence[str]
    routes: Sequence[int]
    tables: list[Figures] = field(default_factory=list[Figures])
    figures: dict[str, object] = field(default_factory=dict[str, object])
    disturbed: bool = False

    @property
    def fewer(self) -> Options:
        """For parts that need no more rounds."""
        return replace(self.options, rounds=min(self.options.rounds, _FEWER_ROUNDS))

    def add(self, name: str, table: Figures, figures: object, *, disturbed: bool) -> None:
        self.tables.append(table)
        self.figures[name] = figures
        self.disturbed = self.disturbed or disturbed
        show(self.console, table)

    def add_profile(self, name: str, figures: ProfileFigures) -> None:
        self.add(name, table(figures), figures.model_dump(), disturbed=figures.disturbance > TOLERATED)


def run(
    console: Console,
    options: Options,
    cores: Cores,
    *,
    parts: Sequence[str],
    profiles: Sequence[str],
    routes: Sequence[int],
) -> Outcome:
    """Measure and show each part in turn."""
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as place:
        bench = _Bench(console, options, cores, Path(place), profiles, routes)
        for name, measure in _MEASURES.items():
            if name in parts:
                measure(bench)
    settings: dict[str, object] = {
        **asdict(options),
        "profiles": list(profiles),
        "routes": list(routes),
        "parts": list(parts),
    }
    headline = bench.tables[: len(profiles)] if "requests" in parts else ()
    return Outcome(bench.tables, settings, bench.figures, bench.disturbed, headline)


def _requests(bench: _Bench) -> None:
    for count in bench.routes:
        # The first size of the table is the one that is quoted; the others show what the table costs.
        size = bench.options if count == bench.routes[0] else bench.fewer
        for name in bench.profiles:
            home = bench.folder / f"{name}-{count}"
            with progress_bar(bench.console) as progress:
                figures = compare(PROFILES[name], size, routes=count, cores=bench.cores, folder=home, progress=progress)
            bench.add_profile(f"{name}, {count} routes", figures)


def _tls(bench: _Bench) -> None:
    profile = replace(PROFILES["bare"], title="Bare requests over TLS 1.3, clients' connections kept")
    home = bench.folder / "tls"
    with progress_bar(bench.console) as progress:
        figures = compare(profile, bench.options, routes=1, cores=bench.cores, folder=home, progress=progress, tls=True)
    bench.add_profile("tls", figures)


def _bodies(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        big = bodies.measure(bench.fewer, cores=bench.cores, folder=bench.folder / "bodies", progress=progress)
    bench.add("bodies", bodies.table(big), big.model_dump(), disturbed=big.disturbance > TOLERATED)


def _cache(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        kept = hits.measure(bench.options, cores=bench.cores, folder=bench.folder / "cache", progress=progress)
    for each in kept:
        bench.add(each.title, hits.table(each), each.model_dump(), disturbed=each.disturbance > TOLERATED)


def _rate(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        paced = rate.measure(bench.fewer, cores=bench.cores, folder=bench.folder / "rate", progress=progress)
    disturbed = paced.disturbance > TOLERATED or paced.lateness_ms > rate.PUNCTUAL_MS
    bench.add("rate", rate.table(paced), paced.model_dump(), disturbed=disturbed)


def _idle(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        held = idle.measure(bench.options.proxies, cores=bench.cores, folder=bench.folder / "idle", progress=progress)
    bench.add("idle", idle.table(held), [each.model_dump() for each in held], disturbed=False)


def _workers(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        scaling = workers.measure(bench.fewer, cores=bench.cores, folder=bench.folder / "workers", progress=progress)
    bench.add("workers", workers.table(scaling), [each.model_dump() for each in scaling], disturbed=False)


def _limit(bench: _Bench) -> None:
    with progress_bar(bench.console) as progress:
        added = limit.measure(bench.options, cores=bench.cores, folder=bench.folder / "limit", progress=progress)
    bench.add("limit", limit.table(added), [each.model_dump() for each in added], disturbed=False)


def _secured(bench: _Bench) -> None:
    home = bench.folder / "secured"
    with progress_bar(bench.console) as progress:
        guarded = secured.measure(bench.options, bench.profiles, cores=bench.cores, folder=home, progress=progress)
    for figures in guarded:
        bench.add_profile(figures.name, figures)


_MEASURES: dict[str, Callable[[_Bench], None]] = {
    "requests": _requests,
    "tls": _tls,
    "bodies": _bodies,
    "cache": _cache,
    "rate": _rate,
    "idle": _idle,
    "workers": _workers,
    "limit": _limit,
    "secured": _secured,
}
PARTS = tuple(_MEASURES)
"""What is measured, in this order."""

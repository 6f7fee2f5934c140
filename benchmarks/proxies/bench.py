"""The bench of the data plane, from options to tables."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED
from benchmarks.profiles import PROFILES
from benchmarks.proxies import bodies, hits, idle, limit, rate, secured, workers
from benchmarks.proxies.comparison import Options, compare
from benchmarks.proxies.tables import table
from benchmarks.report import Figures, Outcome, progress_bar, show

PARTS = ("requests", "tls", "bodies", "cache", "rate", "idle", "workers", "limit", "secured")
"""What is measured, in this order."""
_FEWER_ROUNDS = 3
"""Of the parts whose figures lie far from one another."""


@dataclass(slots=True)
class _Findings:
    """What has been found so far; each table is shown when it is there."""

    console: Console
    tables: list[Figures] = field(default_factory=list[Figures])
    figures: dict[str, object] = field(default_factory=dict[str, object])
    disturbed: bool = False

    def add(self, name: str, table: Figures, figures: object, *, disturbed: bool) -> None:
        self.tables.append(table)
        self.figures[name] = figures
        self.disturbed = self.disturbed or disturbed
        show(self.console, table)


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
    found = _Findings(console)
    fewer = replace(options, rounds=min(options.rounds, _FEWER_ROUNDS))
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as place:
        folder = Path(place)
        if "requests" in parts:
            for count in routes:
                # The first size of the table is the one that is quoted; the others show what the table costs.
                size = options if count == routes[0] else fewer
                for name in profiles:
                    _requests(found, size, name, count, cores, folder)
        if "tls" in parts:
            _over_tls(found, options, cores, folder)
        if "bodies" in parts:
            with progress_bar(console) as progress:
                big = bodies.measure(fewer, cores=cores, folder=folder / "bodies", progress=progress)
            found.add("bodies", bodies.table(big), big.model_dump(), disturbed=big.disturbance > TOLERATED)
        if "cache" in parts:
            with progress_bar(console) as progress:
                kept = hits.measure(options, cores=cores, folder=folder / "cache", progress=progress)
            for each in kept:
                found.add(each.title, hits.table(each), each.model_dump(), disturbed=each.disturbance > TOLERATED)
        if "rate" in parts:
            with progress_bar(console) as progress:
                paced = rate.measure(fewer, cores=cores, folder=folder / "rate", progress=progress)
            disturbed = paced.disturbance > TOLERATED or paced.lateness_ms > rate.PUNCTUAL_MS
            found.add("rate", rate.table(paced), paced.model_dump(), disturbed=disturbed)
        if "idle" in parts:
            with progress_bar(console) as progress:
                held = idle.measure(options.proxies, cores=cores, folder=folder / "idle", progress=progress)
            found.add("idle", idle.table(held), [each.model_dump() for each in held], disturbed=False)
        if "workers" in parts:
            with progress_bar(console) as progress:
                scaling = workers.measure(fewer, cores=cores, folder=folder / "workers", progress=progress)
            found.add("workers", workers.table(scaling), [each.model_dump() for each in scaling], disturbed=False)
        if "limit" in parts:
            with progress_bar(console) as progress:
                added = limit.measure(options, cores=cores, folder=folder / "limit", progress=progress)
            found.add("limit", limit.table(added), [each.model_dump() for each in added], disturbed=False)
        if "secured" in parts:
            with progress_bar(console) as progress:
                guarded = secured.measure(options, profiles, cores=cores, folder=folder / "secured", progress=progress)
            for figures in guarded:
                disturbed = figures.disturbance > TOLERATED
                found.add(figures.name, table(figures), figures.model_dump(), disturbed=disturbed)
    settings: dict[str, object] = {
        **asdict(options),
        "profiles": list(profiles),
        "routes": list(routes),
        "parts": list(parts),
    }
    headline = found.tables[: len(profiles)] if "requests" in parts else ()
    return Outcome(found.tables, settings, found.figures, found.disturbed, headline)


def _over_tls(found: _Findings, options: Options, cores: Cores, folder: Path) -> None:
    profile = replace(PROFILES["bare"], title="Bare requests over TLS 1.3, clients' connections kept")
    with progress_bar(found.console) as progress:
        figures = compare(profile, options, routes=1, cores=cores, folder=folder / "tls", progress=progress, tls=True)
    found.add("tls", table(figures), figures.model_dump(), disturbed=figures.disturbance > TOLERATED)


def _requests(found: _Findings, options: Options, name: str, routes: int, cores: Cores, folder: Path) -> None:
    home = folder / f"{name}-{routes}"
    with progress_bar(found.console) as progress:
        figures = compare(PROFILES[name], options, routes=routes, cores=cores, folder=home, progress=progress)
    disturbed = figures.disturbance > TOLERATED
    found.add(f"{name}, {routes} routes", table(figures), figures.model_dump(), disturbed=disturbed)

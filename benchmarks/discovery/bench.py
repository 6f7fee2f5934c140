"""The bench of the registry, from options to tables."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.discovery.comparison import OPERATIONS, Options, RegistryFigures, compare
from benchmarks.discovery.content import INSTANCES, SERVICES
from benchmarks.discovery.registries import REGISTRIES
from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED
from benchmarks.report import Figures, Outcome, disturbance_note, progress_bar, show

_OPERATION_COLUMNS = (
    "registry",
    "operation",
    "per second",
    "p50 ms",
    "p99 ms",
    "µs CPU",
    "rate, of Consul's",
    "CPU, of Consul's",
)
_WATCHER_COLUMNS = ("registry", "first ms", "median ms", "last ms", "MiB held")


def run(console: Console, options: Options, registries: Sequence[str], cores: Cores) -> Outcome:
    """Measure the registries and show them."""
    with (
        tempfile.TemporaryDirectory(prefix="toska-bench-") as folder,
        progress_bar(console) as progress,
    ):
        found = compare(
            [REGISTRIES[name] for name in registries], options, cores=cores, folder=Path(folder), progress=progress
        )
    tables = [_operations(found), _watchers(found, options.watchers)]
    for table in tables:
        show(console, table)
    return Outcome(
        tables,
        asdict(options),
        {each.name: each.model_dump() for each in found},
        disturbed=any(each.disturbance > TOLERATED for each in found),
    )


def _operations(found: list[RegistryFigures]) -> Figures:
    rows: list[tuple[str, ...]] = []
    for operation in OPERATIONS:
        for each in found:
            figures = each.operations[operation]
            rows.append(
                (
                    f"{each.name} {each.version}",
                    operation,
                    f"{figures.per_second.median:,.0f}",
                    f"{figures.p50_ms.median:.2f}",
                    f"{figures.p99_ms.median:.2f}",
                    f"{figures.cpu_us.median:.0f} ±{figures.cpu_us.noise:.0%}",
                    _times(figures.rate_of_consul),
                    _times(figures.cpu_of_consul),
                )
            )
    title = f"Registry: {SERVICES:,} services of {INSTANCES} instances, one core"
    return Figures(title, _OPERATION_COLUMNS, rows, notes=[disturbance_note(max(each.disturbance for each in found))])


def _times(value: Spread | None) -> str:
    return f"{value.median:.2f}" if value else ""


def _watchers(found: list[RegistryFigures], watchers: int) -> Figures:
    rows: list[tuple[str, ...]] = []
    for each in found:
        moments = ([told.first_ms, told.median_ms, told.last_ms] for told in each.told)
        middle = [median(values) for values in zip(*moments, strict=True)]
        rows.append((f"{each.name} {each.version}", *(f"{value:.0f}" for value in middle), f"{each.pss_mib:.0f}"))
    return Figures(f"One change told to {watchers:,} blocked watchers, and memory held", _WATCHER_COLUMNS, rows)

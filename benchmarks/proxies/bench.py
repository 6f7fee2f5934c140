"""The bench of the data plane, from options to report."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.machine import Cores
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options, ProfileFigures, compare
from benchmarks.proxies.tables import table
from benchmarks.report import Figures, show


def run(
    console: Console, options: Options, profiles: Sequence[str], cores: Cores
) -> tuple[list[Figures], dict[str, object], dict[str, object]]:
    """Measure and show each profile in turn; returns tables, settings and all figures."""
    found: list[ProfileFigures] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as folder:
        for name in profiles:
            home = Path(folder) / name
            home.mkdir()
            with Progress(*columns, console=console, transient=True) as progress:
                found.append(compare(PROFILES[name], options, cores=cores, folder=home, progress=progress))
            show(console, table(found[-1]))
    return [table(each) for each in found], asdict(options), {each.name: each.model_dump() for each in found}

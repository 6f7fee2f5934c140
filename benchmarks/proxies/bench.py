"""The bench of the data plane, from options to tables."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options, ProfileFigures, compare
from benchmarks.proxies.tables import table
from benchmarks.report import Outcome, progress_bar, show


def run(console: Console, options: Options, profiles: Sequence[str], cores: Cores) -> Outcome:
    """Measure and show each profile in turn."""
    found: list[ProfileFigures] = []
    with tempfile.TemporaryDirectory(prefix="toska-bench-") as folder:
        for name in profiles:
            home = Path(folder) / name
            home.mkdir()
            with progress_bar(console) as progress:
                found.append(compare(PROFILES[name], options, cores=cores, folder=home, progress=progress))
            show(console, table(found[-1]))
    return Outcome(
        [table(each) for each in found],
        asdict(options),
        {each.name: each.model_dump() for each in found},
        disturbed=any(each.disturbance > TOLERATED for each in found),
    )

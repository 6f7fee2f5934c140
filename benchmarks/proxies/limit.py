"""What a rate limit adds to a request, over two workers that count together or each for itself.

The three differ in nothing else and take turns, so what slows the machine slows all of them; what the limit adds is
taken within a round.
"""

from pathlib import Path

from rich.progress import Progress

from benchmarks.figures import Record, Spread
from benchmarks.machine import Cores
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options
from benchmarks.proxies.setup import Limit
from benchmarks.proxies.stage import open_stage
from benchmarks.proxies.toska import TOSKA
from benchmarks.proxies.workers import CONNECTIONS, cost
from benchmarks.report import Figures

_WORKERS = 2
_WARM_UP_S = 1
_SCOPES: tuple[Limit, ...] = ("none", "worker", "machine")
_WORDS = {"none": "no limit", "worker": "`scope: worker`", "machine": "`scope: machine`"}
_COLUMNS = ("rate limit", "µs CPU/request", "added µs")


class Added(Record):
    """One scope in all rounds: processor time a request, and what of it is the limit's."""

    scope: str
    cpu_us: Spread
    added_us: Spread


def measure(options: Options, *, cores: Cores, folder: Path, progress: Progress) -> list[Added]:
    """Measure two workers without a limit and with one in each scope, in interleaved rounds."""
    bar = progress.add_task("rate limit", total=options.rounds * len(_SCOPES))
    samples: dict[str, list[float]] = {scope: [] for scope in _SCOPES}
    with open_stage(PROFILES["bare"], cores, folder) as stage:
        load = stage.load(CONNECTIONS)
        subjects = {
            scope: stage.start(TOSKA.name, connections=CONNECTIONS, workers=_WORKERS, limit=scope) for scope in _SCOPES
        }
        for number in range(1, options.rounds + 1):
            for scope, subject in subjects.items():
                progress.update(bar, description=f"rate limit, round {number}: {scope}")
                if number == 1:
                    load.run(subject.port, _WARM_UP_S)
                samples[scope].append(cost(subject, load, options.seconds)[0])
                progress.advance(bar)
    without = samples["none"]
    return [
        Added(
            scope=scope,
            cpu_us=Spread.of(taken),
            added_us=Spread.of([one - bare for one, bare in zip(taken, without, strict=True)]),
        )
        for scope, taken in samples.items()
    ]


def table(found: list[Added]) -> Figures:
    rows = [
        (
            _WORDS[each.scope],
            f"{each.cpu_us.median:.1f} ±{each.cpu_us.noise:.0%}",
            "" if each.scope == "none" else _range(each.added_us),
        )
        for each in found
    ]
    note = "Added within a round: the median, and the least and the most of all rounds."
    return Figures(f"A rate limit over two workers, {CONNECTIONS} connections", _COLUMNS, rows, notes=[note])


def _range(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f} to {spread.high:.1f})"

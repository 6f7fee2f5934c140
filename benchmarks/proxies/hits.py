"""Answers out of a cache: what one costs beside nginx's and Varnish's, and beside one that goes to the upstream."""

from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks import BenchError
from benchmarks.figures import Record, Spread, ratio
from benchmarks.machine import Cores
from benchmarks.parts import find_program
from benchmarks.profiles import PROFILES, Profile
from benchmarks.proxies.comparison import Options, Sample, take_sample
from benchmarks.proxies.nginx import NGINX
from benchmarks.proxies.stage import Stage, Subject, open_stage
from benchmarks.proxies.toska import TOSKA
from benchmarks.proxies.varnish import VARNISH
from benchmarks.report import Figures, disturbance_note

_WARM_UP_S = 1
_KEPT = (("Cache-Control", "public, max-age=3600"), ("ETag", '"v1"'))
_FEW = 50
"""Requests that may reach the upstream meanwhile: whoever looks at its counter is one of them."""
_COLUMNS = ("proxy", "hits/s", "p50 ms", "p99 ms", "µs CPU/hit", "rate per CPU, of nginx's", "core")
KINDS = (
    replace(PROFILES["bare"], name="hits", title="Hits, bare requests", response_headers=_KEPT),
    replace(
        PROFILES["browser"],
        name="hits-browser",
        title="Hits, a browser's requests, each different",
        target="/items",
        request_headers=tuple(field for field in PROFILES["browser"].request_headers if field[0] != "Cookie"),
        response_headers=_KEPT,
    ),
)
"""A browser's without its cookies: those keep nginx from nothing, and us and Varnish from looking."""


class HitsRow(Record):
    """One proxy in all rounds. `rate_of_nginx` is its hits a second of processor time as a multiple of nginx's."""

    name: str
    version: str
    samples: tuple[Sample, ...]
    cpu_us: Spread
    rate_of_nginx: Spread | None


class HitsFigures(Record):
    """All proxies under one kind of traffic."""

    title: str
    rows: tuple[HitsRow, ...]

    @property
    def disturbance(self) -> float:
        """The share of the measured core that other processes had, in the middle and not at its worst."""
        return median(sample.others_share for row in self.rows for sample in row.samples)


def measure(options: Options, *, cores: Cores, folder: Path, progress: Progress) -> list[HitsFigures]:
    """Measure every cache that is there under each kind of traffic, in interleaved rounds.

    Raises:
        BenchError: Answers came from the upstream that were to come from the store.
    """
    names = [name for name in (NGINX.name, VARNISH.name, TOSKA.name) if name != VARNISH.name or _has_varnish()]
    bar = progress.add_task("hits", total=len(KINDS) * options.rounds * len(names))
    found: list[HitsFigures] = []
    for kind in KINDS:
        with open_stage(kind, cores, folder / kind.name) as stage:
            subjects = [stage.start(name, connections=options.connections, caching=True) for name in names]
            samples: dict[str, list[Sample]] = {name: [] for name in names}
            for number in range(1, options.rounds + 1):
                for subject in subjects:
                    progress.update(bar, description=f"{kind.name}, round {number}: {subject.name}")
                    samples[subject.name].append(_sample(stage, subject, options, warm=number == 1))
                    progress.advance(bar)
            found.append(_summary(kind, subjects, samples))
    return found


def _has_varnish() -> bool:
    return find_program("varnishd") is not None


def _sample(stage: Stage, subject: Subject, options: Options, *, warm: bool) -> Sample:
    load = stage.load(options.connections)
    if warm:
        load.run(subject.port, _WARM_UP_S)
    sample, _, arrived = take_sample(subject, stage, load, options.seconds)
    if arrived > _FEW:
        raise BenchError(f"{subject.name} asked the upstream for what it was to have kept")
    return sample


def _summary(kind: Profile, subjects: list[Subject], samples: dict[str, list[Sample]]) -> HitsFigures:
    cpu = {name: [sample.cpu_us for sample in taken] for name, taken in samples.items()}
    rows = [
        HitsRow(
            name=subject.name,
            version=subject.version,
            samples=tuple(samples[subject.name]),
            cpu_us=Spread.of(cpu[subject.name]),
            rate_of_nginx=ratio(cpu[NGINX.name], cpu[subject.name]) if subject.name != NGINX.name else None,
        )
        for subject in subjects
    ]
    return HitsFigures(title=kind.title, rows=tuple(rows))


def table(figures: HitsFigures) -> Figures:
    """The comparison as people read it."""
    return Figures(
        figures.title, _COLUMNS, [_cells(row) for row in figures.rows], notes=[disturbance_note(figures.disturbance)]
    )


def _cells(row: HitsRow) -> tuple[str, ...]:
    def middle(values: list[float], form: str = ".2f") -> str:
        return format(median(values), form)

    return (
        f"{row.name} {row.version}",
        middle([sample.per_second for sample in row.samples], ",.0f"),
        middle([sample.p50_ms for sample in row.samples]),
        middle([sample.p99_ms for sample in row.samples]),
        f"{row.cpu_us.median:.1f} ±{row.cpu_us.noise:.0%}",
        f"{row.rate_of_nginx.median:.2f}" if row.rate_of_nginx else "",
        f"{median(sample.own_share for sample in row.samples):.0%}",
    )

"""A thousand active connections at a constant rate, and how long answers take from the moment a request was due."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks import BenchError
from benchmarks.figures import Record, Spread, ratio
from benchmarks.load import listed
from benchmarks.machine import Cores
from benchmarks.meter import Meter
from benchmarks.pace import WARM_UP_S, Paced
from benchmarks.parts import ROOT
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options
from benchmarks.proxies.envoy import ENVOY
from benchmarks.proxies.stage import DIRECT, Stage, Subject, open_stage, subjects_of
from benchmarks.report import Figures, disturbance_note

CONNECTIONS = 1000
PUNCTUAL_MS = 2.0
"""A load that was later than this in one of a hundred ticks measured itself."""
_COLUMNS = ("proxy", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "p99, of Envoy's", "core", "load late ms (p99)")


class Sample(Record):
    """One proxy in one round."""

    paced: Paced
    own_share: float
    others_share: float


class RateRow(Record):
    """One proxy in all rounds."""

    name: str
    version: str
    samples: tuple[Sample, ...]
    p99_of_envoy: Spread | None


class RateFigures(Record):
    """All proxies at one rate."""

    rate: int
    rows: tuple[RateRow, ...]

    @property
    def disturbance(self) -> float:
        """The share of the measured core that other processes had, in the middle and not at its worst."""
        return median(sample.others_share for row in self.rows for sample in row.samples)

    @property
    def lateness_ms(self) -> float:
        """How late the load was, in the middle of all runs."""
        return median(sample.paced.late_p99_ms for row in self.rows for sample in row.samples)


def measure(options: Options, *, cores: Cores, folder: Path, progress: Progress) -> RateFigures:
    """Measure every proxy at the same rate, in interleaved rounds."""
    bar = progress.add_task("constant rate", total=options.rounds * (len(options.proxies) + 1))
    with open_stage(PROFILES["bare"], cores, folder) as stage:
        subjects = subjects_of(stage, options.proxies, connections=CONNECTIONS)
        samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
        body = stage.folder / "body"
        body.write_bytes(stage.profile.body)
        for number in range(1, options.rounds + 1):
            for subject in subjects:
                progress.update(bar, description=f"{options.rate:,}/s, round {number}: {subject.name}")
                samples[subject.name].append(_sample(stage, subject, body, options))
                progress.advance(bar)
    envoy = samples.get(ENVOY.name)
    rows = [
        RateRow(
            name=subject.name,
            version=subject.version,
            samples=tuple(samples[subject.name]),
            p99_of_envoy=ratio(_p99(samples[subject.name]), _p99(envoy)) if envoy and subject.process else None,
        )
        for subject in subjects
    ]
    return RateFigures(rate=options.rate, rows=tuple(rows))


def _p99(samples: list[Sample]) -> list[float]:
    return [sample.paced.p99_ms for sample in samples]


def _sample(stage: Stage, subject: Subject, body: Path, options: Options) -> Sample:
    meter = Meter(subject.process, stage.cores.measured)
    command = [
        *("setpriv", "--pdeathsig", "TERM", "taskset", "-c", listed(stage.cores.load), sys.executable, "-m"),
        *("benchmarks.pace", str(subject.port), str(stage.request), str(options.rate), str(CONNECTIONS)),
        *(str(options.seconds), str(body)),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=options.seconds + WARM_UP_S + 30,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{subject.name}: the load did not end in time") from error
    if done.returncode:
        raise BenchError(f"{subject.name}: {done.stderr.strip().splitlines()[-1]}")
    spent = meter.stop()
    paced = Paced.model_validate_json(done.stdout)
    return Sample(paced=paced, own_share=spent.own_share, others_share=spent.others_share)


def table(figures: RateFigures) -> Figures:
    rows = [_cells(row) for row in figures.rows]
    notes = [
        "Latency runs from the moment a request was due, so a proxy that stalls is charged for all that waited.",
        disturbance_note(figures.disturbance),
    ]
    if figures.lateness_ms > PUNCTUAL_MS:
        notes.append("The load itself was late too often: measure again on a quiet machine.")
    title = f"{CONNECTIONS:,} active connections, {figures.rate:,} requests/s whatever the answers take"
    return Figures(title, _COLUMNS, rows, notes=notes)


def _cells(row: RateRow) -> tuple[str, ...]:
    def middle(values: list[float]) -> str:
        return f"{median(values):.2f}"

    paced = [sample.paced for sample in row.samples]
    proxied = row.name != DIRECT
    return (
        f"{row.name} {row.version}" if proxied else row.name,
        middle([each.p50_ms for each in paced]),
        middle([each.p99_ms for each in paced]),
        middle([each.p999_ms for each in paced]),
        middle([each.longest_ms for each in paced]),
        f"{row.p99_of_envoy.median:.2f}" if row.p99_of_envoy else "",
        f"{median(sample.own_share for sample in row.samples):.0%}" if proxied else "",
        middle([each.late_p99_ms for each in paced]),
    )

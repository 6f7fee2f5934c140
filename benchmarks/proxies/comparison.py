"""The proxies side by side: interleaved rounds, same upstream, same load, one core for the proxy and one for the rest.

A round measures each proxy once for a few seconds, so that what slows the machine for a while slows all of them. What
counts is the processor time of the proxy's whole process tree over the requests answered meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks import BenchError
from benchmarks.figures import Record, Spread, ratio
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.meter import Meter
from benchmarks.profiles import Profile
from benchmarks.proxies.stage import DIRECT, PEERS, Stage, Subject, open_stage, subjects_of

_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run. `rate` is that of the load that does not wait."""

    proxies: tuple[str, ...]
    rounds: int
    seconds: int
    connections: int
    rate: int


class Sample(Record):
    """One proxy in one round. Shares are of the proxy's core over the time measured."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    own_share: float
    others_share: float


class Row(Record):
    """One proxy in one profile. `cpu_of` is its processor time a request as a multiple of a peer's."""

    name: str
    version: str
    samples: tuple[Sample, ...]
    per_second: Spread
    p50_ms: Spread
    p99_ms: Spread
    cpu_us: Spread
    own_share: Spread
    cpu_of: dict[str, Spread]

    @property
    def busy(self) -> float:
        """How full its core was, with what others did there."""
        return median(sample.own_share + sample.others_share for sample in self.samples)


class ProfileFigures(Record):
    """All proxies under one kind of traffic."""

    name: str
    title: str
    routes: int
    rows: tuple[Row, ...]

    @property
    def disturbance(self) -> float:
        """The share of the measured core that other processes had, in the middle and not at its worst."""
        return median(sample.others_share for row in self.rows for sample in row.samples)


def compare(
    profile: Profile,
    options: Options,
    *,
    routes: int,
    cores: Cores,
    folder: Path,
    progress: Progress,
    streaming: bool = False,
    tls: bool = False,
    guarded: bool = False,
) -> ProfileFigures:
    """Measure every proxy under this profile.

    Raises:
        BenchError: A proxy did not start, or gave any answer that was not the upstream's.
    """
    steps = options.rounds * (len(options.proxies) + 1)
    bar = progress.add_task(profile.title, total=steps)
    with open_stage(profile, cores, folder, routes=routes, guarded=guarded) as stage:
        subjects = subjects_of(stage, options.proxies, connections=options.connections, streaming=streaming, tls=tls)
        loads = {subject.name: stage.load(options.connections, tls=subject.tls) for subject in subjects}
        samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
        for number in range(1, options.rounds + 1):
            for subject in subjects:
                load = loads[subject.name]
                progress.update(bar, description=f"{profile.name}, round {number}: {subject.name}")
                if number == 1:
                    load.run(subject.port, _WARM_UP_S)
                samples[subject.name].append(_sample(subject, stage, load, options.seconds))
                progress.advance(bar)
        for subject in subjects:
            stage.check_answer(subject)
            if subject.log is not None:
                _check_log(stage, subject, samples[subject.name], options.seconds)
    progress.update(bar, description=profile.title)
    return _summary(profile, routes, subjects, samples)


def _check_log(stage: Stage, subject: Subject, samples: Sequence[Sample], seconds: int) -> None:
    served = sum(sample.per_second for sample in samples) * seconds
    lines = stage.logged(subject)
    if lines < 0.99 * served:
        raise BenchError(f"{subject.name} has {lines} lines in its log for {served:.0f} requests")


def take_sample(subject: Subject, stage: Stage, load: Load, seconds: int) -> tuple[Sample, int, int]:
    """Load a proxy for so long; returns the sample, how many answers it gave, and how many requests arrived behind it.

    Raises:
        BenchError: It gave an answer that was not the upstream's.
    """
    arrived = stage.arrived()
    meter = Meter(subject.process, stage.cores.measured)
    try:
        answers = load.run(subject.port, seconds)
    except BenchError as error:
        raise BenchError(f"{subject.name}: {error}") from error
    spent = meter.stop()
    sample = Sample(
        per_second=answers.per_second,
        p50_ms=answers.p50_ms,
        p99_ms=answers.p99_ms,
        cpu_us=spent.cpu_s * 1e6 / answers.requests,
        own_share=spent.own_share,
        others_share=spent.others_share,
    )
    return sample, answers.requests, stage.arrived() - arrived


def _sample(subject: Subject, stage: Stage, load: Load, seconds: int) -> Sample:
    sample, answered, arrived = take_sample(subject, stage, load, seconds)
    if not answered <= arrived <= answered + 2 * load.connections + 1:
        raise BenchError(f"{subject.name} gave {answered} answers for {arrived} requests at the upstream")
    return sample


def _summary(
    profile: Profile, routes: int, subjects: Sequence[Subject], samples: dict[str, list[Sample]]
) -> ProfileFigures:
    cpu = {name: [sample.cpu_us for sample in taken] for name, taken in samples.items() if name != DIRECT}
    rows: list[Row] = []
    for subject in subjects:
        taken = samples[subject.name]
        peers = [peer for peer in PEERS if peer in cpu and subject.name in cpu]
        rows.append(
            Row(
                name=subject.name,
                version=subject.version,
                samples=tuple(taken),
                per_second=Spread.of([sample.per_second for sample in taken]),
                p50_ms=Spread.of([sample.p50_ms for sample in taken]),
                p99_ms=Spread.of([sample.p99_ms for sample in taken]),
                cpu_us=Spread.of([sample.cpu_us for sample in taken]),
                own_share=Spread.of([sample.own_share for sample in taken]),
                cpu_of={peer: ratio(cpu[subject.name], cpu[peer]) for peer in peers},
            )
        )
    return ProfileFigures(name=profile.name, title=profile.title, routes=routes, rows=tuple(rows))

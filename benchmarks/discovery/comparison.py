"""Registries side by side: interleaved rounds of lookups, registrations, renewals, and a change for many watchers."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop
from rich.progress import Progress, TaskID

from benchmarks import BenchError
from benchmarks.discovery.content import (
    AGENT_HELD,
    SERVICES,
    lookup_request,
    registration_request,
    renewal_request,
)
from benchmarks.discovery.registries import CONSUL, Registry
from benchmarks.discovery.seed import seed
from benchmarks.discovery.watchers import Told, tell_watchers
from benchmarks.figures import Record, Spread, ratio
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.meter import Meter
from benchmarks.parts import get_program
from benchmarks.processes import Running, running, wait_until_answering

_WARM_UP_S = 1
OPERATIONS = ("lookup", "registration", "renewal")


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int
    seconds: int
    connections: int
    watchers: int


class Sample(Record):
    """One operation under load, in one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    answer_bytes: float
    others_share: float


class Operation(Record):
    """One operation of one registry. Ours come with their ratio to Consul's."""

    samples: tuple[Sample, ...]
    per_second: Spread
    p50_ms: Spread
    p99_ms: Spread
    cpu_us: Spread
    rate_of_consul: Spread | None
    cpu_of_consul: Spread | None


class RegistryFigures(Record):
    """All that was measured of one registry."""

    name: str
    version: str
    pss_mib: float
    operations: dict[str, Operation]
    told: tuple[Told, ...]

    @property
    def disturbance(self) -> float:
        """The share of its core that other processes had, in the middle and not at its worst."""
        return median(sample.others_share for each in self.operations.values() for sample in each.samples)


@dataclass(frozen=True, slots=True)
class _Subject:
    registry: Registry
    process: Running
    port: int
    token: str
    loads: dict[str, Load]
    pss_mib: float


def compare(
    registries: Sequence[Registry], options: Options, *, cores: Cores, folder: Path, progress: Progress
) -> list[RegistryFigures]:
    """Measure every registry with the same content and the same requests.

    Raises:
        BenchError: A registry did not start, or refused any request.
    """
    steps = len(registries) * (1 + options.rounds * (len(OPERATIONS) + 1))
    bar = progress.add_task("registry", total=steps)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        subjects: list[_Subject] = []
        for registry in registries:
            progress.update(bar, description=f"filling {registry.name}")
            subjects.append(stack.enter_context(_filled(registry, options, cores, folder, runner)))
            progress.advance(bar)
        samples = {
            subject.registry.name: {operation: list[Sample]() for operation in OPERATIONS} for subject in subjects
        }
        told = {subject.registry.name: list[Told]() for subject in subjects}
        for number in range(1, options.rounds + 1):
            for operation in OPERATIONS:
                for subject in subjects:
                    _announce(progress, bar, number, subject, operation)
                    if number == 1:
                        subject.loads[operation].run(subject.port, _WARM_UP_S)
                    sample = _sample(subject, operation, options.seconds, cores.measured)
                    samples[subject.registry.name][operation].append(sample)
            for subject in subjects:
                _announce(progress, bar, number, subject, "watchers")
                telling = tell_watchers(subject.port, subject.token, options.watchers, number)
                told[subject.registry.name].append(runner.run(telling))
    progress.update(bar, description="registry", completed=steps)
    return [_summary(subject, samples, told[subject.registry.name]) for subject in subjects]


def _announce(progress: Progress, bar: TaskID, number: int, subject: _Subject, what: str) -> None:
    progress.update(bar, advance=1, description=f"registry, round {number}: {what}, {subject.registry.name}")


@contextmanager
def _filled(
    registry: Registry, options: Options, cores: Cores, folder: Path, runner: asyncio.Runner
) -> Generator[_Subject]:
    """A registry, started and with its content."""
    home = folder / registry.name
    home.mkdir()
    started = registry.start(home)
    with running(
        registry.name, started.command, folder=home, cores=[cores.measured], environment=started.environment
    ) as process:
        wait_until_answering(process, started.port, "/v1/status/leader")
        token = registry.token(home)
        runner.run(seed(started.port, token, through_catalog=started.through_catalog))
        requests = {
            "lookup": (lookup_request(), SERVICES),
            "registration": (registration_request(token), AGENT_HELD),
            "renewal": (renewal_request(token), AGENT_HELD),
        }
        wrk = get_program("wrk")
        loads: dict[str, Load] = {}
        for operation, (request, routes) in requests.items():
            file = home / operation
            file.write_text(request)
            loads[operation] = Load(wrk, cores.load, options.connections, file, routes)
        yield _Subject(registry, process, started.port, token, loads, process.pss_bytes() / 2**20)


def _sample(subject: _Subject, operation: str, seconds: int, core: int) -> Sample:
    meter = Meter(subject.process, core)
    try:
        answers = subject.loads[operation].run(subject.port, seconds)
    except BenchError as error:
        raise BenchError(f"{subject.registry.name}, {operation}: {error}") from error
    spent = meter.stop()
    return Sample(
        per_second=answers.per_second,
        p50_ms=answers.p50_ms,
        p99_ms=answers.p99_ms,
        cpu_us=spent.cpu_s * 1e6 / answers.requests,
        answer_bytes=answers.bytes / answers.requests,
        others_share=spent.others_share,
    )


def _summary(subject: _Subject, samples: dict[str, dict[str, list[Sample]]], told: list[Told]) -> RegistryFigures:
    name = subject.registry.name
    peers = samples.get(CONSUL.name, {}) if name != CONSUL.name else {}
    operations: dict[str, Operation] = {}
    for operation, taken in samples[name].items():
        theirs = peers.get(operation)
        operations[operation] = Operation(
            samples=tuple(taken),
            per_second=Spread.of([sample.per_second for sample in taken]),
            p50_ms=Spread.of([sample.p50_ms for sample in taken]),
            p99_ms=Spread.of([sample.p99_ms for sample in taken]),
            cpu_us=Spread.of([sample.cpu_us for sample in taken]),
            rate_of_consul=_ratio(taken, theirs, lambda sample: sample.per_second),
            cpu_of_consul=_ratio(taken, theirs, lambda sample: sample.cpu_us),
        )
    return RegistryFigures(
        name=name, version=subject.registry.version(), pss_mib=subject.pss_mib, operations=operations, told=tuple(told)
    )


def _ratio(ours: list[Sample], theirs: list[Sample] | None, value: Callable[[Sample], float]) -> Spread | None:
    return ratio([value(each) for each in ours], [value(each) for each in theirs]) if theirs else None

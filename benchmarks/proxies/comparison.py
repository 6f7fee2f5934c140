"""The proxies side by side: interleaved rounds, same upstream, same load, one core for the proxy and one for the rest.

A round measures each proxy once for a few seconds, so that what slows the machine for a while slows all of them. What
counts is the processor time of the proxy's whole process tree over the requests answered meanwhile.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks import BenchError
from benchmarks.figures import Record, Spread, ratio
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.meter import Meter
from benchmarks.parts import Program, get_program
from benchmarks.processes import Running, fetch, free_ports, running, wait_until_answering
from benchmarks.profiles import BODY, Profile
from benchmarks.proxies.envoy import ENVOY
from benchmarks.proxies.haproxy import HAPROXY
from benchmarks.proxies.nginx import NGINX, STATUS_PATH, upstream_command
from benchmarks.proxies.setup import Proxy, Setup
from benchmarks.proxies.toska import TOSKA

PROXIES = {proxy.name: proxy for proxy in (NGINX, HAPROXY, ENVOY, TOSKA)}
DIRECT = "upstream, direct"
_PEERS = (ENVOY.name, NGINX.name)
_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    proxies: tuple[str, ...]
    rounds: int
    seconds: int
    connections: int
    routes: int


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
    rows: tuple[Row, ...]

    @property
    def disturbance(self) -> float:
        """The share of the measured core that other processes had, in the middle and not at its worst."""
        return median(sample.others_share for row in self.rows for sample in row.samples)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Something that answers under load. The upstream itself is one too, without a core of its own."""

    name: str
    version: str
    port: int
    process: Running | None


def compare(profile: Profile, options: Options, *, cores: Cores, folder: Path, progress: Progress) -> ProfileFigures:
    """Measure every proxy under this profile.

    Raises:
        BenchError: A proxy did not start, or gave any answer that was not the upstream's.
    """
    steps = options.rounds * (len(options.proxies) + 1)
    bar = progress.add_task(profile.title, total=steps)
    with _stage(profile, options, cores, folder) as (subjects, load, upstream):
        samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
        for number in range(1, options.rounds + 1):
            for subject in subjects:
                progress.update(bar, description=f"{profile.name}, round {number}: {subject.name}")
                if number == 1:
                    _check_answer(subject, profile, options.routes)
                    load.run(subject.port, _WARM_UP_S)
                samples[subject.name].append(_sample(subject, load, upstream, options.seconds, cores))
                progress.advance(bar)
        for subject in subjects:
            _check_answer(subject, profile, options.routes)
    progress.update(bar, description=profile.title)
    return _summary(profile, subjects, samples)


@contextmanager
def _stage(
    profile: Profile, options: Options, cores: Cores, folder: Path
) -> Generator[tuple[Sequence[_Subject], Load, int]]:
    """The upstream and all proxies, started; they stay up between their turns, idle."""
    nginx = get_program("nginx")
    wrk = get_program("wrk")
    found = [(PROXIES[name], PROXIES[name].find()) for name in options.proxies]
    upstreams = (*free_ports(2),)
    request = folder / "request"
    request.write_text(profile.request(options.routes))
    load = Load(wrk, cores.load, options.connections, request, options.routes)
    with ExitStack() as stack:
        home = _subfolder(folder, "upstream")
        command = upstream_command(nginx, home, upstreams, profile)
        upstream = stack.enter_context(
            running("upstream", command, folder=home, cores=cores.load, environment=nginx.environment)
        )
        wait_until_answering(upstream, upstreams[0], STATUS_PATH)
        subjects = [_Subject(DIRECT, NGINX.version(nginx), upstreams[0], None)]
        for proxy, program in found:
            subjects.append(_start(stack, proxy, program, upstreams, options.routes, cores, folder))
        yield subjects, load, upstreams[0]


def _start(
    stack: ExitStack,
    proxy: Proxy,
    program: Program,
    upstreams: tuple[int, ...],
    routes: int,
    cores: Cores,
    folder: Path,
) -> _Subject:
    home = _subfolder(folder, proxy.name)
    (port,) = free_ports(1)
    command = proxy.command(program, Setup(home, port, upstreams, routes))
    environment = {"TOSKA_HOME": str(home / "home")} | program.environment
    process = stack.enter_context(
        running(proxy.name, command, folder=home, cores=[cores.measured], environment=environment)
    )
    return _Subject(proxy.name, proxy.version(program), port, process)


def _check_answer(subject: _Subject, profile: Profile, routes: int) -> None:
    """One request as the load sends them must be answered with the upstream's own body."""
    target = profile.request(routes).split(" ", 2)[1].replace("{n}", "0" * 16).replace("{route}", f"{routes - 1:04d}")
    if subject.process is not None:
        wait_until_answering(subject.process, subject.port, target)
    status, body = fetch(subject.port, target, profile.sample())
    if status != 200 or body != BODY:
        raise BenchError(f"{subject.name} answers {target} with {status} and {body[:200]!r}")


def _sample(subject: _Subject, load: Load, upstream: int, seconds: int, cores: Cores) -> Sample:
    arrived = _arrived(upstream)
    meter = Meter(subject.process, cores.measured)
    try:
        answers = load.run(subject.port, seconds)
    except BenchError as error:
        raise BenchError(f"{subject.name}: {error}") from error
    spent = meter.stop()
    arrived = _arrived(upstream) - arrived
    if not answers.requests <= arrived <= answers.requests + 2 * load.connections + 1:
        raise BenchError(f"{subject.name} gave {answers.requests} answers for {arrived} requests at the upstream")
    return Sample(
        per_second=answers.per_second,
        p50_ms=answers.p50_ms,
        p99_ms=answers.p99_ms,
        cpu_us=spent.cpu_s * 1e6 / answers.requests,
        own_share=spent.own_share,
        others_share=spent.others_share,
    )


def _arrived(upstream: int) -> int:
    """Requests that have reached the upstream, by its own count (`stub_status`)."""
    _, body = fetch(upstream, STATUS_PATH)
    return int(body.decode().splitlines()[2].split()[2])


def _summary(profile: Profile, subjects: Sequence[_Subject], samples: dict[str, list[Sample]]) -> ProfileFigures:
    cpu = {name: [sample.cpu_us for sample in taken] for name, taken in samples.items() if name != DIRECT}
    rows: list[Row] = []
    for subject in subjects:
        taken = samples[subject.name]
        peers = [peer for peer in _PEERS if peer in cpu and subject.name in cpu]
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
    return ProfileFigures(name=profile.name, title=profile.title, rows=tuple(rows))


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path

"""Upstream and proxies, started and looked at before they are measured."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import BenchError
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.parts import get_program
from benchmarks.processes import Running, fetch, free_ports, running, wait_until_answering
from benchmarks.profiles import Profile
from benchmarks.proxies.certificate import make_certificate
from benchmarks.proxies.envoy import ENVOY
from benchmarks.proxies.guard import Guard, make_guard
from benchmarks.proxies.haproxy import HAPROXY
from benchmarks.proxies.nginx import NGINX, STATUS_PATH, upstream_command
from benchmarks.proxies.setup import Limit, Proxy, Setup
from benchmarks.proxies.toska import TOSKA
from benchmarks.proxies.varnish import VARNISH

PROXIES = {proxy.name: proxy for proxy in (NGINX, HAPROXY, ENVOY, TOSKA)}
CACHES = {proxy.name: proxy for proxy in (NGINX, VARNISH, TOSKA)}
DIRECT = "upstream, direct"
PEERS = (ENVOY.name, NGINX.name)
"""Whom the others are compared with."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers under load. The upstream itself is one too, without a core of its own."""

    name: str
    version: str
    port: int
    process: Running | None = None
    workers: int = 1
    tls: bool = False
    log: Path | None = None

    @property
    def running(self) -> Running:
        """Its process; not for the upstream."""
        assert self.process is not None
        return self.process


@dataclass(frozen=True, slots=True)
class Stage:
    """What is started for one kind of traffic. All stay up between their turns, idle."""

    profile: Profile
    routes: int
    cores: Cores
    folder: Path
    request: Path
    upstreams: tuple[int, ...]
    direct: Subject
    guard: Guard | None
    _stack: ExitStack = field(repr=False)

    def start(
        self,
        name: str,
        *,
        connections: int = 1024,
        workers: int = 1,
        streaming: bool = False,
        tls: bool = False,
        caching: bool = False,
        limit: Limit = "worker",
    ) -> Subject:
        """Start a proxy; with several workers on all cores, else on the one that is measured."""
        proxy: Proxy = CACHES[name] if caching else PROXIES[name]
        program = proxy.find()
        home = self.folder / f"{name}-{workers}-{limit}"
        home.mkdir()
        (port,) = free_ports(1)
        certificate = make_certificate(home) if tls else None
        setup = Setup(
            home,
            port,
            self.upstreams,
            self.routes,
            connections,
            workers,
            streaming,
            certificate,
            caching=caching,
            guard=self.guard,
            limit=limit,
        )
        process = self._stack.enter_context(
            running(
                name,
                proxy.command(program, setup),
                folder=home,
                cores=[self.cores.measured] if workers == 1 else [self.cores.measured, *self.cores.load],
                environment={"TOSKA_HOME": str(home / "home")} | program.environment,
            )
        )
        log = setup.log if self.guard is not None else None
        subject = Subject(name, proxy.version(program), port, process, workers, tls, log)
        self.check_answer(subject)
        return subject

    def load(self, connections: int, *, tls: bool = False) -> Load:
        """The closed loop that sends this stage's requests."""
        tokens = None if self.guard is None else self.guard.tokens
        return Load(get_program("wrk"), self.cores.load, connections, self.request, self.routes, tls, tokens)

    def check_answer(self, subject: Subject) -> None:
        """One request as the load sends them must be answered with the upstream's own body."""
        profile = self.profile
        target = profile.request(self.routes).split(" ", 2)[1]
        target = target.replace("{n}", "0" * 16).replace("{route}", f"{self.routes - 1:04d}")
        headers = profile.sample()
        if self.guard is not None:
            headers["Authorization"] = f"Bearer {self.guard.token}"
        if subject.process is not None:
            wait_until_answering(subject.process, subject.port, target, headers=headers, tls=subject.tls)
        status, body = fetch(subject.port, target, headers, tls=subject.tls)
        if status != 200 or body != profile.body:
            raise BenchError(f"{subject.name} answers {target} with {status} and {body[:200]!r}")
        if self.guard is not None and subject.process is not None:
            self._check_guard(subject, target, headers)

    def _check_guard(self, subject: Subject, target: str, headers: dict[str, str]) -> None:
        """Verified is what is refused when it is wrong, and logged is what stands in the file."""
        head, body, signature = headers["Authorization"].split(".")
        forged = f"{head}.{body}.{signature[:9]}{'A' if signature[9] != 'A' else 'B'}{signature[10:]}"
        status, _ = fetch(subject.port, target, {**headers, "Authorization": forged}, tls=subject.tls)
        if status != 401:
            raise BenchError(f"{subject.name} answers a forged token with {status}")

    def logged(self, subject: Subject) -> int:
        """Lines in the access log of a guarded proxy."""
        assert subject.log is not None
        with subject.log.open("rb") as lines:
            return sum(1 for _ in lines)

    def arrived(self) -> int:
        """Requests that have reached the upstream, by its own count (`stub_status`)."""
        _, body = fetch(self.upstreams[0], STATUS_PATH)
        return int(body.decode().splitlines()[2].split()[2])


@contextmanager
def open_stage(
    profile: Profile, cores: Cores, folder: Path, *, routes: int = 1, guarded: bool = False
) -> Generator[Stage]:
    """The upstream and what is started on the stage, until the block is left."""
    nginx = get_program("nginx")
    upstreams = (*free_ports(2),)
    folder.mkdir(parents=True)
    request = folder / "request"
    request.write_text(profile.request(routes))
    home = folder / "upstream"
    home.mkdir()
    command = upstream_command(nginx, home, upstreams, profile)
    with ExitStack() as stack:
        upstream = stack.enter_context(
            running("upstream", command, folder=home, cores=cores.load, environment=nginx.environment)
        )
        wait_until_answering(upstream, upstreams[0], STATUS_PATH)
        direct = Subject(DIRECT, NGINX.version(nginx), upstreams[0])
        guard = make_guard(folder) if guarded else None
        yield Stage(profile, routes, cores, folder, request, upstreams, direct, guard, stack)


def subjects_of(
    stage: Stage, proxies: Sequence[str], *, connections: int, streaming: bool = False, tls: bool = False
) -> list[Subject]:
    """The upstream itself and these proxies, one worker each."""
    started = [stage.start(name, connections=connections, streaming=streaming, tls=tls) for name in proxies]
    return [stage.direct, *started]

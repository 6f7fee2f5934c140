"""A registry that is ten times as full: what it holds, what a lookup then costs, and whether every lease lives.

Instances have a TTL of 60 s and are renewed every 20 s for as long as this takes, from the first registration on. Ours
alone: Consul's agent takes minutes for a tenth of it.
"""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import anyio
import uvloop
from rich.console import Console

from benchmarks import BenchError
from benchmarks.discovery.registries import TOSKA
from benchmarks.figures import Record
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED, Meter
from benchmarks.pace import send_paced
from benchmarks.parts import get_program
from benchmarks.processes import Running, running, wait_until_answering
from benchmarks.report import Figures, Outcome, disturbance_note, progress_bar, show

INSTANCES = 10
"""Of each service, as in the smaller bench."""
TTL_S = 60
_RENEWED_EVERY_S = 20
_WATCHED_S = 75
"""Longer than a TTL: by then every lease has lapsed that was not renewed."""
_LOOKUPS_PER_SECOND = 2000
_WRITERS = 32
_CONNECTIONS = 16
_RENEWING_CONNECTIONS = 256
"""Each has one request in flight: with no more than the writers have, the load would hold renewals back by itself."""
_FIRST = 100
_LEAST = 10_000
_LONGEST_FILL_S = 3600
_COLUMNS = (
    "instances",
    "MiB",
    "registrations/s",
    "lookups/s",
    "µs CPU/lookup",
    "renewals/s",
    "p99 ms meanwhile",
    "lapsed",
)


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    instances: int
    seconds: int
    connections: int


class Crowd(Record):
    """One registry with so many instances. The p99 is of lookups at a constant rate while all renewals run."""

    instances: int
    pss_mib: float
    registrations_per_second: float
    lookups_per_second: float
    lookup_cpu_us: float
    renewals_per_second: float
    lookup_p99_ms: float
    lapsed: int
    others_share: float


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Fill one registry with a tenth of the instances and one with all of them, and show both.

    Raises:
        BenchError: The registry refused a request, or an answer is missing.
    """
    found: list[Crowd] = []
    sizes = sorted({min(_LEAST, options.instances), options.instances})
    with (
        tempfile.TemporaryDirectory(prefix="toska-bench-") as place,
        progress_bar(console) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        bar = progress.add_task("a full registry", total=len(sizes))
        for size in sizes:
            progress.update(bar, description=f"{size:,} instances")
            with _registry(Path(place) / str(size), cores) as registry:
                found.append(runner.run(_measure(registry, size, options, cores)))
            progress.advance(bar)
    table = _table(found)
    show(console, table)
    disturbed = any(each.others_share > TOLERATED for each in found)
    return Outcome([table], asdict(options), {str(each.instances): each.model_dump() for each in found}, disturbed)


@dataclass(frozen=True, slots=True)
class _Registry:
    process: Running
    port: int
    token: str
    folder: Path


@contextmanager
def _registry(folder: Path, cores: Cores) -> Generator[_Registry]:
    folder.mkdir()
    started = TOSKA.start(folder)
    with running(
        "toska", started.command, folder=folder, cores=[cores.measured], environment=started.environment
    ) as process:
        wait_until_answering(process, started.port, "/v1/status/leader")
        yield _Registry(process, started.port, TOSKA.token(folder), folder)


async def _measure(registry: _Registry, size: int, options: Options, cores: Cores) -> Crowd:
    known: list[bytes] = []
    clock = asyncio.get_running_loop().time
    began = clock()
    await _fill_and_renew(registry, size, known)
    filled_s = clock() - began
    await _ask_for_each(registry, range(size // INSTANCES))
    load = _load(registry, size, options, cores)
    load.run(registry.port, 1)
    meter = Meter(registry.process, cores.measured)
    answers = load.run(registry.port, options.seconds)
    spent = meter.stop()
    renewals = size / _RENEWED_EVERY_S
    lookups = itertools.cycle([_lookup(service) for service in range(size // INSTANCES)])
    paced, _ = await asyncio.gather(
        send_paced(
            registry.port, lookups, body=b"}]", rate=_LOOKUPS_PER_SECOND, connections=_CONNECTIONS, seconds=_WATCHED_S
        ),
        send_paced(
            registry.port,
            itertools.cycle(known),
            body=b"\r\n\r\n",
            rate=renewals,
            connections=_RENEWING_CONNECTIONS,
            seconds=_WATCHED_S,
        ),
    )
    return Crowd(
        instances=size,
        pss_mib=registry.process.pss_bytes() / 2**20,
        registrations_per_second=size / filled_s,
        lookups_per_second=answers.per_second,
        lookup_cpu_us=spent.cpu_s * 1e6 / answers.requests,
        renewals_per_second=renewals,
        lookup_p99_ms=paced.p99_ms,
        lapsed=size - await _count_passing(registry),
        others_share=spent.others_share,
    )


async def _fill_and_renew(registry: _Registry, size: int, known: list[bytes]) -> None:
    """Register everything, and renew what is known so far at the rate of the whole."""
    await _fill(registry, range(_FIRST), known)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_renew, registry, known, size)
            await _fill(registry, range(_FIRST, size), known)
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise BenchError(f"while the registry was filled: {group.exceptions[0]}") from group


async def _renew(registry: _Registry, known: list[bytes], size: int) -> None:
    rate = size / _RENEWED_EVERY_S
    await send_paced(
        registry.port,
        in_turn(known),
        body=b"\r\n\r\n",
        rate=rate,
        connections=_RENEWING_CONNECTIONS,
        seconds=_LONGEST_FILL_S,
    )


def in_turn(known: Sequence[bytes]) -> Iterator[bytes]:
    """All that is known, over and over, also while it grows: nobody waits longer than one round."""
    while True:
        yield from known


async def _fill(registry: _Registry, wanted: Iterable[int], known: list[bytes]) -> None:
    numbers = iter(wanted)

    async def write(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with session.put("/v1/agent/service/register", data=_registration(number)) as answer:
                _require(answer.status == 200, f"a registration is answered with {answer.status}")
            known.append(_renewal(number, registry.token))

    async with _session(registry) as session, anyio.create_task_group() as tasks:
        for _ in range(_WRITERS):
            tasks.start_soon(write, session, numbers)


async def _ask_for_each(registry: _Registry, services: Iterable[int]) -> None:
    """Have each service's answer encoded, which the first lookup after a change does: a lookup is measured after it."""
    numbers = iter(services)

    async def read(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with session.get(f"/v1/health/service/{_name(number)}?passing") as answer:
                _require(await answer.read() != b"[]", f"{_name(number)} has no instance that is passing")

    async with _session(registry) as session, anyio.create_task_group() as tasks:
        for _ in range(_WRITERS):
            tasks.start_soon(read, session, numbers)


def _session(registry: _Registry) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"http://127.0.0.1:{registry.port}", headers={"X-Consul-Token": registry.token})


async def _count_passing(registry: _Registry) -> int:
    async with _session(registry) as session, session.get("/v1/health/state/passing") as answer:
        return sum(check["ServiceName"].startswith("crowd-") for check in await answer.json())


def _load(registry: _Registry, size: int, options: Options, cores: Cores) -> Load:
    file = registry.folder / "lookup"
    file.write_bytes(_lookup("{route}"))
    return Load(get_program("wrk"), cores.load, options.connections, file, size // INSTANCES)


def _lookup(service: int | str) -> bytes:
    return f"GET /v1/health/service/{_name(service)}?passing HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _name(service: int | str) -> str:
    return f"crowd-{service:04d}" if isinstance(service, int) else f"crowd-{service}"


def _registration(number: int) -> bytes:
    service, member = divmod(number, INSTANCES)
    return json.dumps(
        {
            "ID": f"crowd-{service:04d}-{member}",
            "Name": f"crowd-{service:04d}",
            "Address": f"10.{member}.{service // 256}.{service % 256}",
            "Port": 8000,
            "Tags": ["v1", "eu"],
            "Meta": {"version": "1.4.2", "revision": f"{number:016x}"},
            "Check": {"TTL": f"{TTL_S}s", "Status": "passing"},
        }
    ).encode()


def _renewal(number: int, token: str) -> bytes:
    service, member = divmod(number, INSTANCES)
    path = f"/v1/agent/check/pass/service:crowd-{service:04d}-{member}"
    return f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nX-Consul-Token: {token}\r\nContent-Length: 0\r\n\r\n".encode()


def _require(met: bool, otherwise: str) -> None:
    if not met:
        raise BenchError(otherwise)


def _table(found: list[Crowd]) -> Figures:
    rows = [
        (
            f"{each.instances:,}",
            f"{each.pss_mib:.0f}",
            f"{each.registrations_per_second:,.0f}",
            f"{each.lookups_per_second:,.0f}",
            f"{each.lookup_cpu_us:.1f}",
            f"{each.renewals_per_second:,.0f}",
            f"{each.lookup_p99_ms:.2f}",
            f"{each.lapsed:,}",
        )
        for each in found
    ]
    notes = [
        f"The p99 is that of {_LOOKUPS_PER_SECOND:,} lookups/s while all renewals run.",
        disturbance_note(max(each.others_share for each in found)),
    ]
    title = f"A full registry: TTL {TTL_S} s, each instance renewed every {_RENEWED_EVERY_S} s"
    return Figures(title, _COLUMNS, rows, emphasis="100,000", notes=notes)

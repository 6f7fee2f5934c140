"""Ten thousand clients that keep their connection and ask nothing: the memory they cost each proxy."""

import asyncio
from pathlib import Path
from typing import cast

import uvloop
from rich.progress import Progress

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.machine import Cores
from benchmarks.processes import allow_open_files
from benchmarks.profiles import PROFILES
from benchmarks.proxies.stage import Subject, open_stage
from benchmarks.report import Figures

CONNECTIONS = 10_000
_BATCH = 200
_SETTLE_S = 1.0
_PATIENCE_S = 30.0
_COLUMNS = ("proxy", "MiB at first", f"MiB with {CONNECTIONS:,}", "KiB a connection", "processes")


class Held(Record):
    """Memory of a proxy's whole process tree, shared pages counted once (PSS), before and with the connections."""

    name: str
    version: str
    empty_mib: float
    full_mib: float
    processes: int


class _Client(asyncio.Protocol):
    """Asks once, and then keeps its connection."""

    def __init__(self, request: bytes, body: bytes) -> None:
        self._request = request
        self._body = body
        self._answer = b""
        self.transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(self._body) and not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionResetError("closed before an answer"))


def measure(proxies: tuple[str, ...], *, cores: Cores, folder: Path, progress: Progress) -> list[Held]:
    """Fill each proxy, one after the other.

    Raises:
        BenchError: A proxy did not take the connections, or did not keep them.
    """
    profile = PROFILES["bare"]
    allow_open_files(2 * CONNECTIONS)
    bar = progress.add_task("idle connections", total=len(proxies))
    held: list[Held] = []
    with (
        open_stage(profile, cores, folder) as stage,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        for name in proxies:
            progress.update(bar, description=f"idle connections: {name}")
            subject = stage.start(name, connections=CONNECTIONS)
            runner.run(asyncio.sleep(_SETTLE_S))
            empty = subject.running.pss_bytes()
            full = runner.run(_fill(subject, profile.request(1).encode(), profile.body))
            processes = len(subject.running.cpu_seconds())
            held.append(
                Held(
                    name=name,
                    version=subject.version,
                    empty_mib=empty / 2**20,
                    full_mib=full / 2**20,
                    processes=processes,
                )
            )
            progress.advance(bar)
    return held


async def _fill(subject: Subject, request: bytes, body: bytes) -> int:
    """Bytes that the proxy holds with all the connections, each of which was answered once."""
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while len(clients) < CONNECTIONS:
                opening = (
                    loop.create_connection(lambda: _Client(request, body), "127.0.0.1", subject.port)
                    for _ in range(_BATCH)
                )
                batch = [client for _, client in await asyncio.gather(*opening)]
                clients += batch
                await asyncio.gather(*(client.answered for client in batch))
        await asyncio.sleep(_SETTLE_S)
        if lost := sum(client.transport is None for client in clients):
            raise BenchError(f"{subject.name} closed {lost} of {CONNECTIONS} idle connections")
        return subject.running.pss_bytes()
    except (OSError, TimeoutError) as error:
        raise BenchError(f"{subject.name}, after {len(clients)} connections: {error!r}") from error
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()


def table(held: list[Held]) -> Figures:
    rows = [
        (
            f"{each.name} {each.version}",
            f"{each.empty_mib:.0f}",
            f"{each.full_mib:.0f}",
            f"{(each.full_mib - each.empty_mib) * 1024 / CONNECTIONS:.1f}",
            str(each.processes),
        )
        for each in held
    ]
    return Figures(f"{CONNECTIONS:,} idle connections", _COLUMNS, rows)

"""Real parts that a bench needs beside what it measures: brokers and databases, pinned, with data of their own."""

import asyncio
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil
import uvloop
from toska_common.clock import SystemClock
from toska_common.credentials import ensure_credentials
from toska_events.hosting import host_log
from toska_events.settings import Settings

from benchmarks.parts import ROOT

Policy = Literal["full", "normal"]


@asynccontextmanager
async def rabbitmq(cores: Iterable[int]) -> AsyncGenerator[str]:
    """A RabbitMQ of one node; its URL."""
    with _rig("rabbit_servers").rabbit_server() as server:
        await server.start()
        _pin(server.processes(), cores)
        yield server.url


@asynccontextmanager
async def postgresql(cores: Iterable[int]) -> AsyncGenerator[Any]:
    """A PostgreSQL that commits to the disk, as it does by default; `make_database()` gives the URL of a new one."""
    with _rig("postgres_servers").postgres_server(durable=True) as server:
        await server.start()
        _pin(server.processes(), cores)  # those that it forks later have the same cores
        yield server


@dataclass(frozen=True, slots=True)
class EventLog:
    """An embedded log in a process of its own."""

    home: Path
    process: psutil.Process

    @property
    def token(self) -> str:
        """What an app publishes and subscribes with."""
        return ensure_credentials(self.home).join


@contextmanager
def event_log(core: int, policy: Policy = "full") -> Generator[EventLog]:
    """An embedded log on this core, on the disk where the repository is."""
    with folder("events") as home:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=_serve, args=(theirs, home, policy, core), daemon=True)
        server.start()
        try:
            ours.recv()
            yield EventLog(home, psutil.Process(server.pid))
        finally:
            server.kill()
            server.join(timeout=10)


@contextmanager
def folder(name: str) -> Generator[Path]:
    """A folder on the disk where the repository is, for the block."""
    made = Path(tempfile.mkdtemp(prefix=f".bench-{name}-", dir=ROOT))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _serve(pipe: Connection, home: Path, policy: Policy, core: int) -> None:
    os.sched_setaffinity(0, {core})

    async def serve() -> None:
        async with host_log(Settings(home=home, fsync=policy), SystemClock(), _give_up):
            pipe.send(True)
            await asyncio.Event().wait()

    uvloop.run(serve())


def _give_up(error: Exception) -> None:
    raise SystemExit(str(error))


def _rig(module: str) -> Any:
    tests = str(ROOT / "tests")  # the rigs are those of the tests
    if tests not in sys.path:
        sys.path.insert(0, tests)
    return import_module(f"toska_tests.{module}")


def _pin(processes: Iterable[psutil.Process], cores: Iterable[int]) -> None:
    for process in processes:
        for thread in process.threads():
            os.sched_setaffinity(thread.id, set(cores))

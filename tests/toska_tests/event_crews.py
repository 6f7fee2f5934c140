"""Producers and consumers of events as processes of their own, which are killed and have successors; and their effects.

Every event has an effect: a row that is written together with the event's id. Nothing keeps a number from being there
twice but the inbox, so what the rows say in the end is what consumers have done.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import sqlalchemy as sa
from anyio.to_thread import run_sync
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from toska_common.events.outbox import METADATA

TOPIC, GROUP = "work.item.done", "workers"
_PROGRAM = Path(__file__).with_name("apps") / "event_crew.py"

_TABLES = sa.MetaData()
EFFECTS = sa.Table(
    "effects",
    _TABLES,
    sa.Column("at", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
)
REPEATS = sa.Table(
    "repeats",
    _TABLES,
    sa.Column("at", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
)
"""Events that came again when their effect was there."""


class Effects:
    """What consumers have written."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def count(self) -> int:
        """How many effects there are."""
        return int(await self._scalar(sa.select(sa.func.count()).select_from(EFFECTS)) or 0)

    async def repeats(self) -> int:
        """How many events came again that were handled."""
        return int(await self._scalar(sa.select(sa.func.count()).select_from(REPEATS)) or 0)

    async def by_key(self) -> dict[str, list[int]]:
        """The numbers of each key, in the order of their effects."""
        found: dict[str, list[int]] = {}
        async with self._engine.begin() as session:
            rows = await session.execute(sa.select(EFFECTS.c.key, EFFECTS.c.number).order_by(EFFECTS.c.at))
            for key, number in rows:
                found.setdefault(key, []).append(number)
        return found

    async def _scalar(self, statement: "sa.Select[Any]") -> Any:
        async with self._engine.begin() as session:
            return (await session.execute(statement)).scalar()


@asynccontextmanager
async def effects_in(database: str) -> AsyncGenerator[Effects]:
    """The tables of effects and of the inbox in a database, given as a URL of SQLAlchemy's."""
    engine = create_async_engine(database)
    async with engine.begin() as session:
        for metadata in (METADATA, _TABLES):
            await session.run_sync(metadata.create_all)
    if engine.dialect.name == "sqlite":
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    try:
        yield Effects(engine)
    finally:
        await engine.dispose()


class Crew:
    """A nursery of producers and consumers."""

    def __init__(self, nursery: "subprocess.Popen[str]") -> None:
        self._nursery = nursery
        self._hiring = anyio.Lock()
        self._hired: list[psutil.Process] = []

    async def hire(self, **order: Any) -> psutil.Process:
        """A further process."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        async with self._hiring:
            self._nursery.stdin.write(json.dumps(order) + "\n")
            self._nursery.stdin.flush()
            process = psutil.Process(int(await run_sync(self._nursery.stdout.readline)))
        self._hired.append(process)
        return process

    def dismiss(self) -> None:
        """End all that were hired."""
        for process in self._hired:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._hired.clear()


@contextlib.contextmanager
def event_crew(folder: Path) -> Generator[Crew]:
    """A crew without members; whoever is left is gone when the block ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipe = [sys.executable, str(_PROGRAM)], subprocess.PIPE
    with (folder / "crew.log").open("wb") as log:
        nursery = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment, start_new_session=True
        )
    try:
        yield Crew(nursery)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(nursery.pid, signal.SIGKILL)
        nursery.communicate(timeout=30)
        print((folder / "crew.log").read_text()[-20_000:])


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

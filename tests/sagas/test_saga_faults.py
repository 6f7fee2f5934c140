"""Sagas whose processes die or stall: what was done is not done again, and the books balance."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from anyio.to_thread import run_sync
from toska_tests.apps import saga_crew
from toska_tests.saga_shop import Books
from toska_tests.waiting import wait_until

asyncpg: Any = import_module("asyncpg")  # it is typed in part, and wrongly

LEASE = "2s"
PATIENT = "60s"
"""For workers that are not to lose theirs, however busy the machine is."""
FORWARDS = [f"{deed} {when}" for deed in ("reserve", "charge", "ship") for when in ("before", "after")]
BACK = [f"undo {deed} {when}" for deed in ("charge", "reserve") for when in ("before", "after")]


class Crew:
    """Workers over one database, and their books."""

    def __init__(self, process: "subprocess.Popen[str]", database: str, folder: Path) -> None:
        self._process = process
        self._database = database
        self._folder = folder
        self.books = Books(folder)
        self.gate = folder / "gate"
        self.gate.mkdir()

    async def hire(self, name: str, **order: Any) -> psutil.Process:
        """A further worker."""
        line = {"name": name, "database": self._database, "books": str(self._folder), "lease": LEASE, **order}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        hired = json.loads(await run_sync(self._process.stdout.readline))
        return psutil.Process(hired["pid"])

    def told(self, name: str) -> list[dict[str, Any]]:
        """What a worker told so far."""
        file = self._folder / f"{name}.told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def opened(self, name: str) -> None:
        await wait_until(lambda: bool(self.told(name)), what=f"{name} opens")

    async def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the sagas' database."""
        if self._database.startswith("sqlite"):
            file = Path(urlsplit(self._database).path) / "sagas_orders.sqlite"
            with closing(sqlite3.connect(file, timeout=20)) as connection, connection:
                return connection.execute(statement).fetchall()
        connection = await asyncpg.connect(self._database, server_settings={"search_path": "toska_sagas_orders"})
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def lapse(self) -> None:
        """Let the time pass after which whoever was not heard of has no slot any more."""
        await self.query("UPDATE saga_slots SET expires_at_ms = 1")

    async def states(self) -> dict[str, str]:
        return dict(await self.query("SELECT id, state FROM sagas"))  # type: ignore[arg-type]

    async def outcomes(self, saga_id: str) -> list[str | None]:
        """How its attempts ended, for people."""
        rows = await self.query(f"SELECT outcome FROM saga_attempts WHERE saga_id = '{saga_id}' ORDER BY sequence")  # noqa: S608 - ours
        return [outcome for (outcome,) in rows]

    async def executor(self, saga_id: str) -> str:
        return (await self.query(f"SELECT executor FROM sagas WHERE id = '{saga_id}'"))[0][0]  # noqa: S608 - ours


@pytest.fixture(scope="module")
def crew_process(tmp_path_factory: pytest.TempPathFactory) -> "Generator[subprocess.Popen[str]]":
    log = tmp_path_factory.mktemp("crew") / "crew.log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as errors:
        command = [sys.executable, saga_crew.__file__]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment)
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        for one in [*children, psutil.Process(process.pid)]:
            one.kill()
        process.communicate(timeout=10)
        print(log.read_text()[-20000:])


@pytest.fixture
async def crew(
    crew_process: "subprocess.Popen[str]", fresh_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncGenerator[Crew]:
    made = Crew(crew_process, await fresh_database(), tmp_path)
    before = {child.pid for child in psutil.Process(crew_process.pid).children()}
    yield made
    for child in psutil.Process(crew_process.pid).children():
        if child.pid not in before:
            child.kill()


def gone(process: psutil.Process) -> Callable[[], bool]:
    return lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_whatever_kills_the_process_wherever_the_books_balance(crew: Crew) -> None:
    points = {f"there-{number}": point for number, point in enumerate([*FORWARDS, "end"])}
    back = {f"back-{number}": point for number, point in enumerate(BACK)}
    dying = list({**points, **back}.items())
    for few in (dying[:4], dying[4:8], dying[8:]):
        workers: list[psutil.Process] = []
        for saga_id, point in few:
            wanted = {"refuse": "ship"} if saga_id in back else {}
            order = {"start": {saga_id: wanted}, "die_at": {saga_id: point}, "lease": PATIENT}
            workers.append(await crew.hire(saga_id, **order))
        for worker in workers:
            await wait_until(gone(worker), within=60, what="a worker dies where it should")
    await crew.lapse()
    await crew.hire("heir", lease=PATIENT)

    async def ended() -> bool:
        return set((await crew.states()).values()) <= {"completed", "compensated"}

    await wait_until(ended, within=60, what="the heir ends all sagas", every=0.1)
    states = await crew.states()
    for saga_id, point in points.items():
        assert states[saga_id] == "completed", point
        assert crew.books.effects(saga_id) == {"reserve": 1, "charge": 1, "ship": 1}, point
        # What was recorded is not done again; what was not is, once.
        again = point.split()[0] if point != "end" else None
        expected = [deed for deed in ("reserve", "charge", "ship") for _ in range(2 if deed == again else 1)]
        assert crew.books.calls(saga_id) == expected, point
        # How each ended is known, also where the process died before it had written that.
        assert await crew.outcomes(saga_id) == ["done", "done", "done"], point
    for saga_id, point in back.items():
        assert states[saga_id] == "compensated", point
        assert crew.books.effects(saga_id) == {"reserve": 0, "charge": 0}, point
        assert crew.books.calls(saga_id).count(point.rpartition(" ")[0]) == 2, point


async def test_a_worker_that_comes_later_does_not_run_a_step_that_runs(crew: Crew) -> None:
    await crew.hire("first", start={"order": {}}, gate=str(crew.gate), lease=PATIENT)
    await wait_until(lambda: "charge" in crew.books.calls("order"), what="the step runs")
    await crew.hire("second")
    await crew.opened("second")
    [(before,)] = await crew.query("SELECT expires_at_ms FROM saga_slots WHERE slot = 1")

    async def looked_around() -> bool:
        [(now,)] = await crew.query("SELECT expires_at_ms FROM saga_slots WHERE slot = 1")
        return now > before + 4000  # two leases: it has swept four times

    await wait_until(looked_around, what="the second worker looks around", every=0.2)
    assert crew.books.calls("order") == ["reserve", "charge"]
    assert await crew.executor("order") == "orders/0.1"
    (crew.gate / "order").touch()
    await wait_until(lambda: len(crew.told("first")) == 2, what="the saga ends")
    assert crew.books.calls("order") == ["reserve", "charge", "ship"]
    assert crew.told("first")[1] == {"saga": "order", "state": "completed", "executor": "orders/0.1"}


async def test_a_worker_that_stalled_and_was_taken_over_writes_nothing_more(crew: Crew) -> None:
    stalled = await crew.hire("stalled", start={"order": {}}, gate=str(crew.gate))
    await wait_until(lambda: "charge" in crew.books.calls("order"), what="the step runs")
    stalled.send_signal(signal.SIGSTOP)
    await crew.hire("heir", lease="6s")  # looks for the dead every 3 s

    async def ended() -> bool:
        workflows = await crew.query("SELECT status FROM workflow_status")
        return (await crew.states())["order"] == "completed" and all(status == "SUCCESS" for (status,) in workflows)

    await wait_until(ended, what="the heir ends the saga", every=0.1)
    assert crew.books.calls("order") == ["reserve", "charge", "charge", "ship"]

    async def records() -> list[Any]:
        sagas = await crew.query("SELECT * FROM sagas WHERE id = 'order'")
        attempts = await crew.query("SELECT * FROM saga_attempts ORDER BY sequence")
        steps = await crew.query("SELECT * FROM operation_outputs ORDER BY function_id")
        return [sagas, attempts, steps, await crew.query("SELECT workflow_uuid, status FROM workflow_status")]

    before = await records()
    (crew.gate / "order").touch()
    stalled.send_signal(signal.SIGCONT)

    # It finds that its slot is lost, and goes on with another one, or the same under another number.
    async def back_at_work() -> bool:
        rows = await crew.query("SELECT process, expires_at_ms FROM saga_slots")
        return sum(f"pid {stalled.pid}" in row[0] for row in rows) == 1 and len(crew.told("stalled")) == 2

    await wait_until(back_at_work, what="the stalled worker is back", every=0.1)
    await wait_until(lambda: crew.books.calls("order").count("charge") == 2)
    assert await records() == before
    assert crew.books.effects("order") == {"reserve": 1, "charge": 1, "ship": 1}
    # The heir ended it, in a slot that was free, or in the one that had lapsed when it came.
    assert crew.told("stalled")[1]["executor"] in ("orders/1.1", "orders/0.2")

"""How sagas open and close in a service, and what they leave alone."""

import asyncio
import base64
import pickle
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import psutil
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from toska_common.contracts.sagas import SagaState
from toska_common.database import parse_location
from toska_common.database.migrating import migrate
from toska_common.database.upkeep import VERSION_TABLE
from toska_common.errors import ConfigurationError
from toska_common.sagas import Attempt, Run, Saga, Sagas, SagasClosed, SagaSettings, migrations, saga, step
from toska_tests.postgres_servers import PostgresServer
from toska_tests.saga_shop import Order, books, place_order, reserve
from toska_tests.waiting import wait_until


@saga("changing")
async def changing(order: Order, run: Run) -> None:
    """As it was in a release that has gone."""
    await run(reserve, order)
    await run(wait_for_release, order)


released: set[str] = set()


@step()
async def wait_for_release(order: Order, attempt: Attempt) -> None:
    books.call(attempt, "wait")
    while attempt.saga_id not in released:  # noqa: ASYNC110 - a set tells nobody
        await anyio.sleep(0.01)


@saga("changing")
async def changed(order: Order, run: Run) -> None:
    """As it is now: without a new version, though it does other steps."""
    await run(wait_for_release, order)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sagas]:
    books.open(tmp_path)

    def build(*definitions: Saga[Order, object], **settings: object) -> Sagas:
        told = SagaSettings.model_validate({"home": tmp_path, "lease": "5s", **settings})
        return Sagas("orders", definitions, settings=told, registry=CollectorRegistry())

    return build


def database(folder: Path) -> Path:
    return folder / "sagas_orders" / "sagas_orders.sqlite"


async def test_a_service_may_have_a_name_of_one_letter(tmp_path: Path) -> None:
    books.open(tmp_path)
    async with Sagas("a", [place_order], settings=SagaSettings(home=tmp_path), registry=CollectorRegistry()) as sagas:
        done = await sagas.wait(await sagas.start(place_order, Order()), timeout=timedelta(seconds=30))
    assert done.state is SagaState.COMPLETED


async def test_nothing_is_made_before_the_first_saga(make: Callable[..., Sagas], tmp_path: Path) -> None:
    before = threading.active_count()
    async with make(place_order) as sagas:
        assert (await sagas.list()).sagas == []
        assert not database(tmp_path).exists()
        assert threading.active_count() <= before + 1  # a worker thread of anyio's


async def test_a_service_notices_nothing_of_what_remembers_its_sagas(
    make: Callable[..., Sagas], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    process = psutil.Process()
    listening = {connection.laddr for connection in process.net_connections() if connection.status == "LISTEN"}
    async with make(place_order) as sagas:
        await sagas.run(place_order, Order())
        now = {connection.laddr for connection in process.net_connections() if connection.status == "LISTEN"}
        assert now == listening
        threads = {thread.name for thread in threading.enumerate()}
        assert "toska-sagas" in threads
        # asyncio.to_thread is the service's own: DBOS puts its executor there, on the loop that it runs on.
        assert not (await asyncio.to_thread(lambda: threading.current_thread().name)).startswith("dbos")
    await wait_until(lambda: "toska-sagas" not in {thread.name for thread in threading.enumerate()})
    assert not [thread.name for thread in threading.enumerate() if "dbos" in thread.name or "queue" in thread.name]
    captured = capfd.readouterr()
    assert "DBOS" not in captured.out + captured.err
    assert database(tmp_path).stat().st_mode & 0o077 == 0


async def test_an_unfinished_saga_goes_on_when_the_service_comes_back(make: Callable[..., Sagas]) -> None:
    released.clear()
    async with make(changing, stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="left")
        await wait_until(lambda: "wait" in books.calls("left"))
    async with make(changing) as sagas:
        released.add("left")
        # Nobody asks for anything: it is found by looking.
        file = database(sagas.settings.home)

        def state() -> str:
            with closing(sqlite3.connect(file, timeout=20)) as connection:
                return connection.execute("SELECT state FROM sagas WHERE id = 'left'").fetchone()[0]

        await wait_until(lambda: state() == "completed")
    assert books.calls("left") == ["reserve", "wait", "wait"]


async def test_a_service_that_stops_at_any_moment_loses_nothing(make: Callable[..., Sagas]) -> None:
    draw = random.Random(7)
    for life in range(4):
        async with make(place_order, stopping="0s") as sagas:
            for number in range(3):
                wanted = Order(refuse=draw.choice(["", "ship"]))
                await sagas.start(place_order, wanted, id=f"{life}-{number}")
            await anyio.sleep(draw.random() * 0.2)
    async with make(place_order) as sagas:
        ids = [one.id for one in (await sagas.list()).sagas]
        assert len(ids) == 12
        for saga_id in ids:
            ended = await sagas.wait(saga_id)
            if ended.state is SagaState.COMPLETED:
                assert books.effects(saga_id) == {"reserve": 1, "charge": 1, "ship": 1}
            else:
                assert (ended.state, books.effects(saga_id)) == (SagaState.COMPENSATED, {"reserve": 0, "charge": 0})


async def test_a_saga_whose_function_changed_is_stuck_until_the_right_one_is_back(make: Callable[..., Sagas]) -> None:
    released.clear()
    async with make(changing, stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="other")
        await wait_until(lambda: "wait" in books.calls("other"))
    async with make(changed) as sagas:
        stuck = await sagas.wait("other")
        assert "its function does not do what it did before" in stuck.stuck
    released.add("other")
    async with make(changing) as sagas:
        await sagas.resume("other")
        assert (await sagas.wait("other")).state is SagaState.COMPLETED
    assert books.calls("other") == ["reserve", "wait", "wait"]


async def test_a_saga_that_nobody_knows_awaits_a_process_that_does(make: Callable[..., Sagas]) -> None:
    released.clear()
    async with make(changing, stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="unknown")
        await wait_until(lambda: "wait" in books.calls("unknown"))
    async with make(place_order) as sagas:
        assert "knows changing version 1" in (await sagas.wait("unknown")).stuck
    released.add("unknown")
    async with make(changing) as sagas:

        async def completed() -> bool:
            return (await sagas.get("unknown")).state is SagaState.COMPLETED

        await wait_until(completed)


async def test_a_step_that_processes_die_of_is_not_tried_for_ever(make: Callable[..., Sagas], tmp_path: Path) -> None:
    released.clear()
    async with make(changing, stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="deadly")
        await wait_until(lambda: "wait" in books.calls("deadly"))
    with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
        connection.execute("UPDATE saga_attempts SET begun = 10 WHERE sequence = 2")
    released.add("deadly")
    async with make(changing) as sagas:
        assert "wait-for-release attempt 1 died in the middle of it, 10 times" in (await sagas.wait("deadly")).stuck
        assert books.calls("deadly") == ["reserve", "wait"]
        await sagas.resume("deadly")
        assert (await sagas.wait("deadly")).state is SagaState.COMPLETED


async def test_sagas_that_ended_long_ago_are_forgotten_with_all_that_is_recorded(
    make: Callable[..., Sagas], tmp_path: Path
) -> None:
    def rows(table: str) -> int:
        with closing(sqlite3.connect(database(tmp_path), timeout=20)) as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours

    released.clear()
    async with make(place_order, changing, keep="1s", stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="under-way")
        await sagas.run(place_order, Order(), id="done")
        await wait_until(lambda: rows("sagas") == 1)
        assert (await sagas.get("under-way")).state is SagaState.RUNNING
        assert [rows(table) for table in ("saga_attempts", "workflow_status")] == [2, 1]
        await sagas.run(place_order, Order(), id="done")
    assert books.calls("done") == ["reserve", "charge", "ship"] * 2


async def test_what_is_done_for_a_saga_that_is_another_runs_is_not_recorded(
    make: Callable[..., Sagas], tmp_path: Path
) -> None:
    released.clear()
    async with make(changing, lease="1s") as sagas:
        await sagas.start(changing, Order(), id="usurped")
        await wait_until(lambda: "wait" in books.calls("usurped"))
        with closing(sqlite3.connect(database(tmp_path), timeout=20)) as connection, connection:
            connection.execute("UPDATE workflow_status SET owner_xid = 'somebody-else'")
        released.add("usurped")
        # This run lets go of it, and since nobody else has it in truth, a later one takes it up.
        assert (await sagas.wait("usurped")).state is SagaState.COMPLETED
    assert books.calls("usurped").count("reserve") == 1
    assert books.calls("usurped").count("wait") >= 2


async def test_only_so_many_steps_run_at_a_time(make: Callable[..., Sagas]) -> None:
    released.clear()
    async with make(changing, concurrency=1) as sagas:
        for saga_id in ("one", "two"):
            await sagas.start(changing, Order(), id=saga_id)
        await wait_until(lambda: "wait" in books.calls("one") + books.calls("two"))
        first, second = ("one", "two") if "wait" in books.calls("one") else ("two", "one")
        assert "wait" not in books.calls(second)
        released.update((first, second))
        for saga_id in (first, second):
            assert (await sagas.wait(saga_id)).state is SagaState.COMPLETED


async def test_a_pickle_in_the_database_is_never_unpickled(make: Callable[..., Sagas], tmp_path: Path) -> None:
    released.clear()
    async with make(changing, stopping="0s") as sagas:
        await sagas.start(changing, Order(), id="victim")
        await wait_until(lambda: "wait" in books.calls("victim"))
    planted = tmp_path / "planted"
    pickled = base64.b64encode(pickle.dumps(_Bomb(str(planted)))).decode()
    with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
        connection.execute("UPDATE operation_outputs SET output = ?, serialization = 'py_pickle'", (pickled,))
    async with make(changing) as sagas:
        stuck = await sagas.wait("victim")
        assert stuck.state is SagaState.STUCK
        assert "pickles are neither written nor read here" in stuck.stuck
    assert books.calls("victim") == ["reserve", "wait"]
    assert not planted.exists()


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path(self.path).write_text, ("boom",))


async def test_a_closed_service_starts_nothing(make: Callable[..., Sagas]) -> None:
    sagas = make(place_order)
    with pytest.raises(SagasClosed):
        await sagas.start(place_order, Order())
    async with sagas:
        await sagas.run(place_order, Order())
    with pytest.raises(SagasClosed):
        await sagas.start(place_order, Order())


async def test_sagas_wait_while_postgresql_is_away_and_a_service_that_stops_does_not(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    books.open(tmp_path)
    released.clear()
    url = await own_postgres.make_database()
    settings = SagaSettings(database_url=SecretStr(url), stopping=timedelta(seconds=1))
    async with Sagas("orders", [changing], settings=settings, registry=CollectorRegistry()) as sagas:
        for saga_id in ("away", "left"):
            await sagas.start(changing, Order(), id=saga_id)
            await wait_until(lambda name=saga_id: "wait" in books.calls(name))
        own_postgres.kill()
        released.add("away")
        await anyio.sleep(0.5)
        await own_postgres.start()
        with anyio.fail_after(60):
            assert (await sagas.wait("away")).state is SagaState.COMPLETED
        assert books.calls("away") == ["reserve", "wait"]
        sagas.check()
        own_postgres.kill()
        released.add("left")
        await anyio.sleep(0.5)
        stopping_at = anyio.current_time()
    # Python waits for these at its end.
    await wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("dbos")])
    assert anyio.current_time() - stopping_at < 20


async def test_the_steps_of_migration_make_the_tables_that_the_code_has(tmp_path: Path) -> None:
    location = parse_location("embedded://", service="sagas", home=tmp_path)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/migrated.sqlite")
    with engine.begin() as connection:
        VERSION_TABLE.create(connection)
        migrate(connection, location, Path(migrations.__path__[0]), "base")
        assert connection.scalar(sa.select(VERSION_TABLE.c.version_num)) == migrations.HEAD
        assert compare_metadata(MigrationContext.configure(connection), migrations.METADATA) == []
    engine.dispose()


def test_declaring_sagas_loads_no_database() -> None:
    script = "import toska_common.sagas, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert not {"dbos", "sqlalchemy", "psycopg", "alembic"} & set(found.stdout.split())


def test_without_the_extra_it_is_said_what_to_install() -> None:
    # None in its place keeps a module from being imported, and from being found.
    script = "import sys; sys.modules['dbos'] = None; from toska_common.sagas import Sagas; Sagas('orders', [])"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    ).stderr
    assert "pip install 'toska-common[sagas]'" in said


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: saga("Place Order"), "write up to 64 of a-z"),
        (lambda: saga("place-order", version=0), "version"),
        (lambda: Sagas("orders", [changing, changed], settings=SagaSettings()), "there twice"),
    ],
)
def test_wrong_declarations_say_what_is_wrong(build: Callable[[], object], reason: str) -> None:
    async def nothing(order: Order, run: Run) -> None: ...

    with pytest.raises(ConfigurationError, match=reason):
        made = build()
        if callable(made):
            made(nothing)

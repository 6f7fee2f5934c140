"""What a leader may do about a route: nothing that an operator did not want, and nothing before it knows enough."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from toska_common.contracts.experiments import Experiment
from toska_common.contracts.rollouts import Rollout
from toska_common.contracts.routing import Abort, Cluster, Endpoint, Fault, Match, Route, RouteTable, WeightedCluster
from toska_common.contracts.tallies import MAX_TALLIES
from toska_common.database import Database, parse_location
from toska_common.errors import ConfigurationError
from toska_common.testing import FakeClock
from toska_router.book import RoutesBook
from toska_router.documents import Change
from toska_router.errors import ExperimentUnderWay, RolloutUnderWay
from toska_router.experiments import changes as experiments
from toska_router.experiments.machine import Window
from toska_router.rollouts.adoption import adopt
from toska_router.rollouts.changes import put_rollout
from toska_router.rollouts.leading import tend
from toska_router.runs.book import RunsBook, precondition_of
from toska_router.runs.overlays import Overlays
from toska_router.runs.records import RolloutRecord
from toska_router.runs.store import Runs, RunsStore
from toska_router.store import MIGRATIONS, RoutesStore
from toska_router.stored import Author
from toska_router.tables import RUNS
from toska_router.taking_over import OldFile

CLUSTERS = {
    name: Cluster(endpoints=(Endpoint(address="127.0.0.1", port=port),))
    for name, port in (("old", 9001), ("new", 9002))
}
ROUTE = Route(name="pay", match=Match(path_prefix="/"), to=(WeightedCluster(cluster="old"),))
ROLLOUT = Rollout(name="pay", route="pay", baseline="old", canary="new")
EXPERIMENT = Experiment(
    name="chaos", routes=("pay",), fault=Fault(abort=Abort(status=503)), duration=timedelta(minutes=1)
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANY = precondition_of(None, absent=False)


class Known:
    """What one router knows of the routes, which another may have changed meanwhile."""

    def __init__(self) -> None:
        self.table = RouteTable(clusters=CLUSTERS, routes=(ROUTE,))
        self.revision = 3


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database(parse_location("embedded://", service="router", home=tmp_path), migrations=MIGRATIONS)
    yield database
    await database.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def runs_of(known: Known, database: Database, clock: FakeClock) -> RunsBook:
    return RunsBook(
        RunsStore(database),
        table=lambda: known.table,
        revision=lambda: known.revision,
        is_own=lambda _: True,
        clock=clock,
    )


async def test_a_router_that_does_not_know_the_newest_routes_leaves_what_was_made_for_them_alone(
    database: Database, clock: FakeClock
) -> None:
    behind = Known()
    behind.table, behind.revision = RouteTable(), 2
    await put_rollout(runs_of(Known(), database, clock), ROLLOUT, "ann", ANY)
    leading = runs_of(behind, database, clock)
    async with leading.changing() as (transaction, runs):
        assert (await tend(leading, transaction, runs.rollouts["pay"], 1.0)).phase == "pending"
    behind.table, behind.revision = Known().table, 3
    async with leading.changing() as (transaction, runs):
        assert (await tend(leading, transaction, runs.rollouts["pay"], 1.0)).phase == "running"
    behind.table = RouteTable()
    async with leading.changing() as (transaction, runs):
        assert (await tend(leading, transaction, runs.rollouts["pay"], 1.0)).phase == "superseded"


async def test_nor_does_it_end_an_experiment_whose_routes_it_has_not_heard_of(
    database: Database, clock: FakeClock
) -> None:
    known = Known()
    leading, window = runs_of(known, database, clock), Window()
    await experiments.put_experiment(leading, EXPERIMENT, "ann", ANY)
    for table, revision, phase in (
        (known.table, 3, "running"),
        (RouteTable(), 2, "running"),
        (RouteTable(), 3, "stopped"),
    ):
        known.table, known.revision = table, revision
        async with leading.changing() as (transaction, runs):
            record = await experiments.tend(leading, transaction, runs.experiments["chaos"], window, 1)
        assert record.status.phase == phase


async def test_an_experiment_that_nobody_took_up_in_time_does_not_begin_later(
    database: Database, clock: FakeClock
) -> None:
    leading = runs_of(Known(), database, clock)
    await experiments.put_experiment(leading, EXPERIMENT, "ann", ANY)
    clock.advance(seconds=301)
    async with leading.changing() as (transaction, runs):
        record = await experiments.tend(leading, transaction, runs.experiments["chaos"], Window(), 1)
    assert (record.status.phase, record.status.started_at) == ("stopped", None)


async def test_what_was_written_holds_here_though_the_database_went_away_right_after(
    database: Database, clock: FakeClock
) -> None:
    runs = runs_of(Known(), database, clock)
    file = database.location.file
    assert file is not None
    await put_rollout(runs, ROLLOUT, "ann", ANY)
    paused = runs.runs.rollouts["pay"].model_copy(update={"phase": "paused"})
    async with runs.changing() as (transaction, _):
        await transaction.put(paused)
        file.rename(file.with_name("away"))
    assert runs.runs.rollouts["pay"] == paused
    file.with_name("away").rename(file)


async def test_what_a_newer_release_wrote_is_named(database: Database, clock: FakeClock) -> None:
    runs = runs_of(Known(), database, clock)
    await put_rollout(runs, ROLLOUT, "ann", ANY)
    async with database.writing() as connection:
        body = {**runs.runs.rollouts["pay"].model_dump(mode="json"), "phase": "levitating"}
        await connection.execute(RUNS.update().values(body=body))
    with pytest.raises(ConfigurationError, match=r"rollout pay that this release cannot read.*phase"):
        await runs.refresh()


def test_a_rollout_that_was_begun_anew_between_two_looks_is_another() -> None:
    # As a router sees it that has heard of neither the end of the first nor its being deleted.
    table = Known().table
    first = RolloutRecord(rollout=ROLLOUT, phase="running", to=ROUTE.to, created_at=NOW, changed_at=NOW)
    second = first.model_copy(update={"created_at": NOW + timedelta(seconds=1)})
    runs = [Runs(rollouts={"pay": one}) for one in (first, second)]
    overlays = Overlays(lambda: runs[0])
    before = overlays.apply(table).routes[0].policies.watch
    del runs[0]
    assert overlays.apply(table).routes[0].policies.watch not in (None, before)
    assert first.version != second.version


async def test_no_more_are_begun_than_gateways_count_for(database: Database, clock: FakeClock) -> None:
    known = Known()
    names = [f"pay-{number}" for number in range(MAX_TALLIES + 1)]
    routes = (ROUTE.model_copy(update={"name": name, "match": Match(path=f"/{name}")}) for name in names)
    known.table = RouteTable(clusters=CLUSTERS, routes=tuple(routes))
    runs = runs_of(known, database, clock)
    for name in names[:-1]:
        await put_rollout(runs, ROLLOUT.model_copy(update={"name": name, "route": name}), "ann", ANY)
    with pytest.raises(RolloutUnderWay, match="64"):
        await put_rollout(runs, ROLLOUT.model_copy(update={"name": names[-1], "route": names[-1]}), "ann", ANY)
    with pytest.raises(ExperimentUnderWay, match="64"):
        chaos = EXPERIMENT.model_copy(update={"routes": (names[-1],)})
        await experiments.put_experiment(runs, chaos, "ann", ANY)


async def test_a_canary_takes_the_route_over_only_while_that_leads_where_it_did(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    runs = runs_of(Known(), database, clock)
    await put_rollout(runs, ROLLOUT, "ann", ANY)
    record = runs.runs.rollouts["pay"]
    book = RoutesBook(RoutesStore(database, clock), None, OldFile(tmp_path))
    await book.open()
    changes = [*(Change("cluster", name, one) for name, one in CLUSTERS.items()), Change("route", "pay", ROUTE)]
    await book.change(lambda _: changes, Author())
    # A colleague is a moment faster than the router that leads.
    by_hand = ROUTE.model_copy(update={"to": (WeightedCluster(cluster="old", weight=7),)})
    await book.change(lambda _: [Change("route", "pay", by_hand)], Author())
    await adopt(book, record)
    assert book.sources.find("route", "pay") == by_hand
    await book.change(lambda _: [Change("route", "pay", ROUTE)], Author())
    await adopt(book, record)
    route = book.sources.find("route", "pay")
    assert isinstance(route, Route)
    assert route.to == (WeightedCluster(cluster="new"),)

"""Where rollouts, experiments and counts are kept, on SQLite and on PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from toska_common.contracts.rollouts import Rollout, RolloutEvent
from toska_common.contracts.routing import WeightedCluster
from toska_common.contracts.tallies import CellCounts, Tally, TallyReport
from toska_common.database import Database, parse_location
from toska_router.runs.records import RolloutRecord
from toska_router.runs.store import NotLeading, RunsStore
from toska_router.store import MIGRATIONS
from toska_tests.postgres_servers import PostgresServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = RolloutRecord(
    rollout=Rollout(name="pay", route="pay", baseline="old", canary="new"),
    to=(WeightedCluster(cluster="old"),),
    created_at=NOW,
    changed_at=NOW,
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[tuple[RunsStore, RunsStore]]:
    """Two routers' stores over one database."""
    url = f"sqlite://{tmp_path}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = await server.make_database()
    databases = [Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS) for _ in "ab"]
    yield RunsStore(databases[0]), RunsStore(databases[1])
    for database in databases:
        await database.aclose()


def report(epoch: str, sequence: int, requests: int, token: str = RECORD.token) -> TallyReport:
    tally = Tally(token=token, cells={"new": CellCounts(requests=requests, buckets={3: requests})})
    return TallyReport(epoch=epoch, sequence=sequence, tallies=(tally,))


async def test_what_one_router_writes_another_reads_with_its_history(stores: tuple[RunsStore, RunsStore]) -> None:
    one, other = stores
    assert (await one.load()).rollouts == {}
    paused = RECORD.model_copy(update={"phase": "paused"})
    async with one.changing() as transaction:
        await transaction.put(RECORD)
        await transaction.put(paused)
        for step in range(3):
            event = RolloutEvent(sequence=0, at=NOW, kind="promoted", step=step, by="ann")
            await transaction.append("rollout", "pay", event)
    assert (await other.load()).rollouts == {"pay": paused}
    assert [(line["sequence"], line["step"]) for line in await other.list_events("rollout", "pay", 2)] == [
        (2, 1),
        (3, 2),
    ]
    async with other.changing() as transaction:
        await transaction.delete("rollout", "pay")
    assert (await one.load()).rollouts == {}
    assert await one.list_events("rollout", "pay", 10) == []


async def test_the_newest_report_of_each_gateway_counts_whoever_heard_it(stores: tuple[RunsStore, RunsStore]) -> None:
    one, other = stores
    heard = [(one, "a", 1, 10), (other, "a", 3, 30), (one, "a", 2, 20), (one, "b", 1, 5), (other, "b", 1, 5)]
    for store, epoch, sequence, requests in heard:
        async with store.changing() as transaction:
            await transaction.hear(report(epoch, sequence, requests), {RECORD.token})
            await transaction.hear(report(epoch, sequence, 1000, token="other"), {RECORD.token})
    async with one.changing() as transaction:
        tallies = await transaction.tallies(RECORD.token)
        assert [tally.cells["new"].requests for tally in tallies] == [30, 5]
        assert await transaction.tallies("other") == []
        await transaction.forget_tallies(["another"])
        assert await transaction.tallies(RECORD.token) == []


async def test_a_leader_that_was_followed_writes_nothing_more(stores: tuple[RunsStore, RunsStore]) -> None:
    one, other = stores
    async with one.changing() as transaction:
        first = await transaction.take_lead("one")
        await transaction.require_lead(first)
    async with other.changing() as transaction:
        second = await transaction.take_lead("other")
    with pytest.raises(NotLeading):
        async with one.changing() as transaction:
            await transaction.put(RECORD)
            await transaction.require_lead(first)
    runs = await one.load()
    assert (runs.leader.fence, runs.leader.router, runs.rollouts) == (second, "other", {})

"""Following the router: through outages, refusals, and routers that answer nonsense."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from toska_common.contracts.routing import Inventory, Snapshot, SnapshotDelta, SnapshotPoll, WeightedCluster
from toska_common.routing.delta import build_delta, compare_inventory, inventory_of
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.routing.versions import table_version
from toska_gateway.follower import FIRST_PAUSE_S, SnapshotFollower, pause
from toska_gateway.routing import Routing
from toska_gateway.settings import Settings
from toska_gateway.supervisor import Supervisor
from toska_gateway.system_routes import build_system_routes
from toska_tests.control import control_mesh, web_server
from toska_tests.waiting import wait_until

BASE = 'routes: [{name: one, match: {path_prefix: /one}, respond: {body: "1"}}]'


def snapshot(*names: str) -> Snapshot:
    routes = [{"name": name, "match": {"path_prefix": f"/{name}"}, "respond": {"body": name}} for name in names]
    return build_snapshot(build_table(load_document(json.dumps({"routes": routes}), source="test")))


class ScriptedRouter:
    """Speaks the router's protocol; a test says what it answers, and sees what it was asked."""

    def __init__(self) -> None:
        self.polls: list[SnapshotPoll] = []
        self.snapshot: Snapshot | None = None
        self.answers: list[web.Response] = []
        self.known: dict[str, Inventory] = {}
        self.changed = anyio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        poll = SnapshotPoll.model_validate_json(await request.read())
        self.polls.append(poll)
        with anyio.move_on_after(poll.wait_seconds):
            while not self.answers and not self._has_news(poll):
                await self.changed.wait()
        if self.answers:
            return self.answers.pop(0)
        if self.snapshot is None:
            return web.Response(status=503)
        return web.Response(body=self._delta(poll, self.snapshot).model_dump_json(), content_type="application/json")

    def _delta(self, poll: SnapshotPoll, newest: Snapshot) -> SnapshotDelta:
        if not self._has_news(poll):
            return SnapshotDelta(version=poll.version, base=poll.version)
        if not poll.version:
            return build_delta("", None, newest, newest.version)
        has = poll.inventory or self.known.get(poll.version)
        if has is None:
            return SnapshotDelta(version=poll.version, base=poll.version, base_unknown=True)
        return build_delta(poll.version, compare_inventory(has, newest), newest, newest.version)

    def _has_news(self, poll: SnapshotPoll) -> bool:
        newest = self.snapshot
        if newest is None:
            return False
        return newest.version not in (poll.version, poll.rejected_version)

    def publish(self, newest: Snapshot, *answers: web.Response) -> None:
        """Answer with these, and then with the snapshot."""
        self.snapshot = newest
        self.known[newest.version] = inventory_of(newest)
        self.answers = [*answers]
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(frozen=True, slots=True)
class Rig:
    """A follower between a scripted router and real workers."""

    router: ScriptedRouter
    routing: Routing
    follower: SnapshotFollower

    async def publish(self, newest: Snapshot, *answers: web.Response) -> None:
        """Publish, and wait until it is served."""
        self.router.publish(newest, *answers)
        await wait_until(lambda: self.routing.current == newest, what="the newest snapshot is served")


@pytest.fixture(scope="module")
async def supervisor() -> AsyncGenerator[Supervisor]:
    supervisor = Supervisor("127.0.0.1", 0, 1)
    async with supervisor.run():
        yield supervisor


@pytest.fixture
async def rig(home: Path, supervisor: Supervisor) -> AsyncGenerator[Rig]:
    router = ScriptedRouter()
    routing = Routing(supervisor, build_system_routes(Settings(home=home)))
    async with (
        web_server(router.answer) as port,
        aiohttp.ClientSession() as session,
        anyio.create_task_group() as group,
    ):
        url = f"http://127.0.0.1:{port}"
        follower = SnapshotFollower(session, url, "token", "gateway-1", routing, wait=timedelta(seconds=5))
        group.start_soon(follower.run)
        yield Rig(router, routing, follower)
        group.cancel_scope.cancel()


def refusable(*names: str) -> Snapshot:
    """A snapshot whose first route leads to a cluster that is not there."""
    good = snapshot(*names)
    lost = good.table.routes[0].model_copy(update={"respond": None, "to": (WeightedCluster(cluster="gone"),)})
    table = good.table.model_copy(update={"routes": (lost, *good.table.routes[1:])})
    return good.model_copy(update={"table": table, "routes_version": table_version(table)})


def everything(newest: Snapshot) -> web.Response:
    """The answer to somebody who has nothing."""
    return web.Response(body=build_delta("", None, newest, newest.version).model_dump_json())


async def test_each_new_snapshot_is_served_and_the_next_poll_says_so(rig: Rig) -> None:
    for newest in (snapshot("one"), snapshot("one", "two"), snapshot("two")):
        await rig.publish(newest)
        await wait_until(lambda newest=newest: rig.router.polls[-1].version == newest.version)
    assert rig.follower.reachable
    assert rig.router.polls[-1].gateway == "gateway-1"


async def test_a_router_that_does_not_know_what_is_served_here_is_told_and_sends_what_is_missing(rig: Rig) -> None:
    first, second, third = snapshot("one"), snapshot("one", "two"), snapshot("one", "two", "three")
    await rig.publish(first)
    rig.router.known.clear()
    await rig.publish(second)
    told = [poll for poll in rig.router.polls if poll.inventory is not None]
    assert [[*inventory.routes] for poll in told if (inventory := poll.inventory)] == [["one"]]
    await rig.publish(third)
    assert [poll for poll in rig.router.polls if poll.inventory is not None] == told


async def test_a_refused_snapshot_changes_nothing_is_reported_and_not_asked_for_again(rig: Rig) -> None:
    good, bad = snapshot("one"), refusable("one", "two")
    await rig.publish(good)
    with capture_logs() as logs:
        rig.router.publish(bad)
        await wait_until(lambda: rig.router.polls[-1].rejected_version == bad.version)
        assert (rig.routing.current, rig.follower.rejected_version) == (good, bad.version)
        assert 'routes[0].to[0].cluster: there is no cluster "gone"' in rig.router.polls[-1].rejected
        asked = len(rig.router.polls)
        await rig.publish(snapshot("one", "three"))
    assert len(rig.router.polls) - asked <= 1
    assert [entry["version"] for entry in logs if entry["event"] == "snapshot_rejected"] == [bad.version]
    assert rig.follower.rejected == ""


async def test_a_router_that_offers_the_refused_one_again_is_not_asked_in_a_tight_loop(rig: Rig) -> None:
    bad = refusable("two")
    await rig.publish(snapshot("one"))
    asked, started = len(rig.router.polls), anyio.current_time()
    await rig.publish(snapshot("three"), *[everything(bad) for _ in range(4)])
    assert len(rig.router.polls) - asked >= 4
    assert anyio.current_time() - started > 3 * FIRST_PAUSE_S


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=500, text="crashed"),
        web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
        web.Response(text="not json"),
        web.Response(text="{}"),
        web.Response(text='{"routes_version": "made-up", "table": {}}'),
        web.Response(text='{"routes_version": "gone"}'),
    ],
    ids=["500", "redirect", "text", "empty", "wrong version", "unknown base"],
)
async def test_whatever_a_router_answers_the_last_good_snapshot_is_served_on(rig: Rig, answer: web.Response) -> None:
    served: list[Snapshot] = []
    rig.routing.on_change.append(served.append)
    good, better = snapshot("one"), snapshot("one", "two")
    await rig.publish(good)
    with capture_logs() as logs:
        await rig.publish(better, answer)
    assert [entry["event"] for entry in logs] == ["router_unreachable", "snapshot_applied", "router_reached"]
    assert served == [good, better]


async def test_a_delta_that_does_not_fit_makes_it_ask_for_everything(rig: Rig) -> None:
    await rig.publish(snapshot("one"))
    await rig.publish(snapshot("two"), web.Response(text='{"routes_version": "gone"}'))
    assert [poll.version for poll in rig.router.polls].count("") >= 2


async def test_after_an_outage_the_first_poll_is_answered_at_once(rig: Rig) -> None:
    await rig.publish(snapshot("one"))
    asked = len(rig.router.polls)
    await rig.publish(snapshot("one", "two"), web.Response(status=500))
    await wait_until(lambda: rig.router.polls[-1].wait_seconds > 0)
    assert 0 in [poll.wait_seconds for poll in rig.router.polls[asked:]]


async def test_a_poll_that_failed_is_repeated_when_the_pause_says_so(home: Path, supervisor: Supervisor) -> None:
    router, routing = ScriptedRouter(), Routing(supervisor, build_system_routes(Settings(home=home)))
    pauses, nudged = list[float](), anyio.Event()

    async def until_nudged(seconds: float) -> None:
        pauses.append(seconds)
        await nudged.wait()

    async with (
        web_server(router.answer) as port,
        aiohttp.ClientSession() as session,
        anyio.create_task_group() as group,
    ):
        url = f"http://127.0.0.1:{port}"
        group.start_soon(SnapshotFollower(session, url, "token", "gateway-1", routing, sleep=until_nudged).run)
        await wait_until(lambda: len(pauses) == 1, what="a first poll in vain")
        newest = snapshot("one")
        router.publish(newest)
        assert len(router.polls) == 1
        nudged.set()
        await wait_until(lambda: routing.current == newest, what="the snapshot is served")
        group.cancel_scope.cancel()


def test_pauses_double_to_a_bound_and_are_spread() -> None:
    assert all(0.1 <= pause(1) <= 0.2 for _ in range(50))
    assert all(2.5 <= pause(20) <= 5 for _ in range(50))
    assert len({pause(5) for _ in range(10)}) > 5


async def test_a_gateway_serves_from_its_store_while_router_and_discovery_are_down(home: Path) -> None:
    (routes := home / "mesh.yaml").write_text(BASE)
    async with control_mesh(home, "discovery") as mesh:
        await mesh.start_router(routes=routes)
        await mesh.start_gateway()
        await mesh.until_answered(f"{mesh.data}/one")
        await mesh.stop("router")
        await mesh.stop("discovery")
        assert (await mesh.get(f"{mesh.data}/one")).text == "1"
        await mesh.stop("gateway")
        with anyio.fail_after(20):
            await mesh.start_gateway()
        assert (await mesh.get(f"{mesh.data}/one")).text == "1"
        overview = (await mesh.until_answered(f"{mesh.data}/api/v1/gateway")).json()
        assert (overview["source"], overview["router"]["reachable"]) == ("store", False)
        assert overview["router"]["error"]
        assert (await mesh.get(f"{mesh.admin}/health/ready")).status_code == 200

        await mesh.start_discovery()
        routes.write_text(BASE.replace("/one", "/two"))
        await mesh.start_router(routes=routes)
        await mesh.until_answered(f"{mesh.data}/two")
        assert (await mesh.get(f"{mesh.data}/api/v1/gateway")).json()["source"] == "router"


async def test_without_a_snapshot_it_waits_for_the_router_and_is_not_ready(home: Path) -> None:
    async with control_mesh(home, "gateway") as mesh:
        assert (await mesh.get(f"{mesh.admin}/health/ready")).status_code == 503
        components = (await mesh.get(f"{mesh.admin}/health/detailed")).json()["components"]
        assert "no snapshot yet" in components["routing"]["reason"]
        assert components["workers"]["status"] == "healthy"
        assert (await mesh.get(f"{mesh.data}/api/v1/gateway")).json()["source"] == "none"
        assert (await mesh.get(f"{mesh.data}/x")).headers["x-toska-error"] == "no-route"
        await mesh.start_discovery()
        await mesh.start_router()
        await mesh.until_answered(f"{mesh.admin}/health/ready")


async def test_polls_tell_what_was_counted_and_come_once_a_second_while_a_route_is_watched(rig: Rig) -> None:
    plain = snapshot("one")
    policies = plain.table.routes[0].policies.model_copy(update={"watch": "rollout:one:1:0"})
    table = plain.table.model_copy(
        update={"routes": (plain.table.routes[0].model_copy(update={"policies": policies}),)}
    )
    await rig.publish(plain.model_copy(update={"table": table, "routes_version": table_version(table)}))
    await wait_until(lambda: len([poll for poll in rig.router.polls if poll.counted]) >= 2)
    told = [poll for poll in rig.router.polls if poll.counted]
    reports = [poll.counted for poll in told if poll.counted is not None]
    assert all(poll.wait_seconds <= 1 for poll in told)
    assert {report.epoch for report in reports} == {reports[0].epoch}
    assert [report.sequence for report in reports] == [*range(1, len(reports) + 1)]
    assert reports[0].tallies[0].token == "rollout:one:1:0"

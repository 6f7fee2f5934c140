"""The mesh's own routes in front of every snapshot, and the addresses that no user's cluster may lead to."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.routing import Endpoint, Snapshot
from toska_common.routing.document import load_document
from toska_common.routing.pools import pool, with_pools
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.routing.tables import TableChange, apply_table_delta, build_table_delta, compare
from toska_common.targets import TargetRules
from toska_gateway.addresses import local_addresses, management_addresses
from toska_gateway.routing import check_snapshot
from toska_gateway.settings import Settings
from toska_gateway.system_routes import build_system_routes


def snapshot(services: tuple[str, ...] = (), **document: Any) -> Snapshot:
    return build_snapshot(build_table(load_document(json.dumps({"routes": [], **document}), source="test"), services))


CATCH_ALL = {"name": "all", "match": {"path_prefix": "/"}, "respond": {"status": 204}}


def test_they_come_before_every_other_route(home: Path) -> None:
    given = snapshot(routes=[CATCH_ALL])
    served = build_system_routes(Settings(home=home)).put_in_front(given)
    names = [route.name for route in served.table.routes]
    assert names[-1] == "all"
    prefixes = {route.match.path_prefix: route.to[0].cluster for route in served.table.routes[:-1]}
    assert prefixes == {
        "/api/v1/services": "toska-discovery",
        "/api/v1/routes": "toska-router",
        "/api/v1/clusters": "toska-router",
        "/api/v1/policies": "toska-router",
        "/api/v1/schemas": "toska-router",
        "/api/v1/revisions": "toska-router",
        "/api/v1/diff": "toska-router",
        "/api/v1/rollback": "toska-router",
        "/api/v1/changes": "toska-router",
        "/api/v1/document": "toska-router",
        "/api/v1/rollouts": "toska-router",
        "/api/v1/experiments": "toska-router",
        "/api/v1/select": "toska-router",
        "/api/v1/xds": "toska-router",
        "/api/v1/snapshot": "toska-router",
        "/api/v1/gateways": "toska-router",
        "/api/v1/events": "toska-events",
        "/api/v1/gateway": "toska-gateway",
        "/api/v1/openapi": "toska-gateway",
        "/openapi.json": "toska-gateway",
        "/docs": "toska-gateway",
        "/problems": "toska-gateway",
    }
    assert served.endpoints["toska-router"].endpoints[0].port == 8102
    assert check_snapshot(given) == []


def test_the_served_version_changes_with_the_routes_and_with_the_mesh_s_own_addresses(home: Path) -> None:
    first, second = snapshot(routes=[CATCH_ALL]), snapshot()
    here = build_system_routes(Settings(home=home))
    there = build_system_routes(Settings(home=home, router_url="http://127.0.0.1:9999"))
    versions = {system.put_in_front(given).routes_version for system in (here, there) for given in (first, second)}
    assert len(versions) == 4


def test_off_loopback_the_snapshot_is_served_as_it_is(home: Path) -> None:
    given = snapshot(routes=[CATCH_ALL])
    assert build_system_routes(Settings(home=home, host="0.0.0.0")).put_in_front(given) is given


def test_a_wildcard_listener_is_reached_on_loopback(home: Path) -> None:
    settings = Settings(home=home, host="0.0.0.0", serve_management=True)
    served = build_system_routes(settings).put_in_front(snapshot())
    assert served.endpoints["toska-gateway"].endpoints[0].address == "127.0.0.1"


def test_a_snapshot_that_names_a_cluster_of_the_mesh_is_wrong() -> None:
    given = snapshot(clusters={"legacy": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}})
    stolen = {"toska-router": given.table.clusters["legacy"]}
    endpoints = {"toska-router": given.endpoints["legacy"]}
    table = given.table.model_copy(update={"clusters": stolen})
    problems = check_snapshot(given.model_copy(update={"table": table, "endpoints": endpoints}))
    assert [problem["field"] for problem in problems] == ["clusters.toska-router"]


def test_a_snapshot_whose_routes_lead_nowhere_is_wrong() -> None:
    given = snapshot(services=("orders",))
    assert check_snapshot(given) == []
    without_clusters = given.model_copy(update={"table": given.table.model_copy(update={"clusters": {}})})
    without_endpoints = given.model_copy(update={"endpoints": {}})
    assert [problem["field"] for problem in check_snapshot(without_clusters)] == ["routes[0].to"]
    assert [problem["field"] for problem in check_snapshot(without_endpoints)] == ["endpoints.orders"]


async def test_every_listener_of_the_mesh_is_forbidden_ground_also_by_another_loopback_address(home: Path) -> None:
    rules = TargetRules(await management_addresses(Settings(home=home, router_url="http://localhost:8102")))
    for port in (8080, 8100, 8101, 8102, 8500):
        for address in ("127.0.0.1", "::1", "127.0.0.9", "0.0.0.0"):
            assert rules.refusal(address, port), (address, port)
    assert rules.refusal("127.0.0.1", 9001) is None


async def test_a_listener_on_all_interfaces_is_forbidden_ground_by_each_of_its_addresses(home: Path) -> None:
    rules = TargetRules(await management_addresses(Settings(home=home, host="0.0.0.0")))
    for address in local_addresses():
        assert rules.refusal(address, 8100)


async def test_a_host_that_cannot_be_resolved_is_left_out(home: Path) -> None:
    settings = Settings(home=home, router_url="http://no-such-host.invalid:8102")
    assert ("127.0.0.1", 8101) in await management_addresses(settings)


@pytest.mark.parametrize("port", [8101, 8102, 8500])
async def test_a_gateway_without_a_mesh_has_only_its_own_listeners(home: Path, port: int) -> None:
    file = home / "mesh.yaml"
    file.write_text("routes: []")
    rules = TargetRules(await management_addresses(Settings(home=home, routes=file)))
    assert rules.refusal("127.0.0.1", port) is None
    assert rules.refusal("127.0.0.1", 8100)


def test_they_stay_before_every_other_route_while_those_change(home: Path) -> None:
    system = build_system_routes(Settings(home=home))
    chance = random.Random(5)
    given = snapshot(routes=[])
    served = system.put_in_front(given)
    for turn in range(40):
        names = chance.sample([f"r{number}" for number in range(6)], k=chance.randint(0, 6))
        changed = snapshot(
            tuple(chance.sample(["orders", "stock"], k=chance.randint(0, 2))),
            routes=[{"name": name, "match": {"path": f"/{name}"}, "respond": {"body": str(turn)}} for name in names],
        )
        if turn % 3 == 0:  # the endpoints of a cluster alone
            pools = {name: pool([Endpoint(address="127.0.0.1", port=turn + 1)]) for name in given.table.clusters}
            changed = with_pools(given, given.table, given.routes_version, pools)
        served = system.put_in_front(changed, (given, served))
        assert served == system.put_in_front(changed)
        given = changed


def test_a_change_of_one_route_leaves_all_others_as_the_same_objects(home: Path) -> None:
    system = build_system_routes(Settings(home=home))
    routes = [{"name": f"r{number}", "match": {"path": f"/{number}"}, "respond": {}} for number in range(100)]
    given = snapshot(routes=routes)
    served = system.put_in_front(given)
    table = apply_table_delta(given.table, build_table_delta(TableChange(routes=frozenset({"r7"})), given.table, ""))
    after = system.put_in_front(with_pools(given, table, given.routes_version, {}), (given, served))
    assert compare(served.table, after.table).routes == {"r7"}
    assert after.table.clusters is served.table.clusters

"""Gateways wait for snapshots and get what they lack, and no more."""

import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.contracts.routing import SnapshotDelta
from toska_common.routing.delta import apply_delta, inventory_of
from toska_common.routing.versions import table_version
from toska_tests.clients import http_client
from toska_tests.routers import RunningRouter, StartRouter, is_empty, poll_body
from toska_tests.waiting import wait_until

MakeInstance = Callable[..., ServiceRegistration]

LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
ROUTE = {"match": {"path": "/a"}, "respond": {"body": "a"}}


async def wait_for_polls(router: RunningRouter, count: int) -> None:
    async def are_waiting() -> bool:
        metrics = (await router.http.get("/metrics")).text
        return f"toska_router_polls_waiting {float(count)}" in metrics

    await wait_until(are_waiting, what=f"{count} gateways wait")


async def test_one_endpoint_s_change_sends_one_endpoint(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    await router.put("clusters/shop", {"service": "orders"})
    await router.put("clusters/legacy", LEGACY)
    for port in range(9001, 9006):
        await consul.register_service(instance("orders", port))
    has = await router.wait_for_endpoints("shop", *(f"orders-{port}" for port in range(9001, 9006)))
    await consul.register_service(instance("orders", 9003, weight=7))
    delta = await router.poll(has)
    assert delta.table is None
    assert delta.endpoints.keys() == {"shop"}
    change = delta.endpoints["shop"]
    assert [(endpoint.key, endpoint.weight) for endpoint in change.upsert] == [("orders-9003", 7)]
    assert (change.base, change.remove) == (has.endpoints["shop"].version, ())
    now = apply_delta(has, delta)
    assert now.version == (await router.snapshot()).version

    await consul.deregister_service("orders-9001")
    gone = (await router.poll(now)).endpoints["shop"]
    assert (gone.upsert, gone.remove) == ((), ("orders-9001",))


async def test_a_gateway_without_news_is_answered_when_its_time_is_over(router: RunningRouter) -> None:
    has = await router.snapshot()
    delta = await router.poll(has, wait=0.05)
    assert is_empty(delta)
    assert delta.version == has.version


async def test_a_hundred_waiting_gateways_have_a_change_at_once(router: RunningRouter) -> None:
    has = await router.snapshot()
    spent = 0.0
    versions: set[str] = set()

    async def follow(number: int) -> None:
        delta = await router.poll(has, gateway=f"gateway-{number}")
        versions.add(apply_delta(has, delta).version)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(follow, number)
        await wait_for_polls(router, 100)
        assert len(await router.read("gateways")) == 100
        spent = time.process_time()
        assert (await router.put("routes/a", ROUTE)).status_code == 201
    spent = time.process_time() - spent
    assert versions == {(await router.snapshot()).version}
    # The bound holds for this process, which plays all the gateways too; a router alone is several times faster. In
    # processor time, since a machine of CI does other things as well; who heard only when its poll was over has the old
    # version.
    assert spent < 2


async def test_one_route_s_change_sends_one_route(router: RunningRouter) -> None:
    for name in "abcde":
        await router.put(f"routes/{name}", {"match": {"path": f"/{name}"}, "respond": {"body": name}})
    has = await router.snapshot()
    await router.put("routes/c", {"match": {"path": "/c"}, "respond": {"body": "new"}})
    delta = await router.poll(has)
    assert delta.table is not None
    assert [(item.route.name, item.after) for item in delta.table.routes] == [("c", "b")]
    assert (delta.table.clusters, delta.table.removed_routes, delta.endpoints) == ({}, (), {})
    now = apply_delta(has, delta)
    assert now == await router.snapshot()

    await router.delete("routes/a")
    gone = await router.poll(now)
    assert gone.table is not None
    assert (gone.table.routes, gone.table.removed_routes) == ((), ("a",))
    # Whoever is two changes behind gets both.
    assert apply_delta(has, await router.poll(has)) == apply_delta(now, gone)


async def test_a_gateway_of_another_router_is_asked_what_it_has_and_gets_only_what_it_lacks(
    router: RunningRouter,
) -> None:
    await router.put("clusters/legacy", LEGACY)
    await router.put("routes/a", ROUTE)
    newest = await router.snapshot()
    old = newest.table.routes[0].model_copy(update={"name": "old"})
    table = newest.table.model_copy(update={"routes": (*newest.table.routes, old)})
    elsewhere = newest.model_copy(update={"table": table, "routes_version": table_version(table)})
    asked = await router.poll(elsewhere)
    assert asked.base_unknown
    assert is_empty(asked)
    delta = await router.poll(elsewhere, inventory=inventory_of(elsewhere).model_dump())
    assert delta.table is not None
    assert (delta.base, delta.table.routes, delta.table.removed_routes) == (elsewhere.version, (), ("old",))
    assert apply_delta(elsewhere, delta) == newest


async def test_a_refused_snapshot_is_not_sent_again_and_the_next_one_is(router: RunningRouter) -> None:
    has = await router.snapshot()
    await router.put("routes/a", ROUTE)
    refused = apply_delta(has, await router.poll(has)).version
    for version in (refused, ""):
        delta = await router.poll(has, wait=0.05, rejected="cannot do that", rejected_version=version)
        assert is_empty(delta)
        assert delta.version == has.version
    [gateway] = await router.read("gateways")
    assert (gateway["rejected"], gateway["up_to_date"]) == ("cannot do that", False)

    answers: list[SnapshotDelta] = []

    async def follow() -> None:
        answers.append(await router.poll(has, rejected="cannot do that", rejected_version=refused))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await wait_for_polls(router, 1)
        await router.put("routes/b", {**ROUTE, "match": {"path": "/b"}})
    assert answers[0].table is not None
    assert [item.route.name for item in answers[0].table.routes] == ["a", "b"]


async def test_the_overview_says_which_gateway_runs_what(router: RunningRouter) -> None:
    old = await router.snapshot()
    await router.put("routes/a", ROUTE)
    new = await router.snapshot()
    await router.poll(old, gateway="behind", wait=0)
    await router.poll(new, gateway="current", wait=0)
    listed: dict[str, Any] = {gateway["name"]: gateway for gateway in await router.read("gateways")}
    assert (listed["behind"]["up_to_date"], listed["current"]["up_to_date"]) == (False, True)
    assert listed["current"]["routes_version"] == new.routes_version
    assert listed["behind"]["routes_version"] == old.routes_version
    assert (listed["behind"]["version"], listed["current"]["version"]) == (old.version, new.version)
    assert listed["behind"]["applied_after_seconds"] is None
    assert 0 <= listed["current"]["applied_after_seconds"] < 30


async def test_a_gateway_that_goes_away_waits_no_longer(router: RunningRouter) -> None:
    has = await router.snapshot()
    async with http_client(base_url=router.http.base_url) as leaving, anyio.create_task_group() as group:
        group.start_soon(_poll_until_cancelled, leaving, poll_body(has, wait=60))
        await wait_for_polls(router, 1)
        group.cancel_scope.cancel()
    await wait_for_polls(router, 0)
    [gateway] = await router.read("gateways")
    assert gateway["waiting"] is False


async def _poll_until_cancelled(client: httpx.AsyncClient, body: Any) -> None:
    await client.post("/api/v1/snapshot", json=body, timeout=70)


async def test_a_stopping_router_lets_its_gateways_go_at_once(start_router: StartRouter) -> None:
    async with start_router() as router:
        has = await router.snapshot()
        answers: list[SnapshotDelta] = []

        async def follow() -> None:
            answers.append(await router.poll(has, wait=60))

        begun = time.monotonic()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(follow)
            await wait_for_polls(router, 20)
            router.stop()
        assert all(is_empty(answer) for answer in answers)
        assert len(answers) == 20
        assert time.monotonic() - begun < 30  # and not the minute for which they would wait


async def test_two_routers_of_the_same_inputs_serve_the_same_versions(
    start_router: StartRouter, consul: ConsulClient, instance: MakeInstance, tmp_path_factory: Any
) -> None:
    await consul.register_service(instance("orders", 9002, meta={"toska-expose": "true"}))
    await consul.register_service(instance("orders", 9001))
    async with start_router() as one, start_router(home=tmp_path_factory.mktemp("other")) as two:
        first = await one.wait_for_endpoints("orders", "orders-9001", "orders-9002")
        second = await two.wait_for_endpoints("orders", "orders-9001", "orders-9002")
        assert first.version == second.version
        assert is_empty(await two.poll(first, wait=0))

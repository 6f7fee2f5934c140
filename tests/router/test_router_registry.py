"""Following a registry, Consul or discovery's own: what is passing takes traffic, an outage takes nothing away."""

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.discovery import META_EXPOSE
from toska_common.contracts.offers import encode_offer
from toska_tests.registries import wire_to
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until

MakeInstance = Callable[..., ServiceRegistration]

EXPOSED = {META_EXPOSE: "true"}


@pytest.fixture(params=["consul", "embedded"])
def registry_kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def route_names(router: RunningRouter) -> list[str]:
    return [route.name for route in (await router.snapshot()).table.routes]


async def test_passing_instances_of_a_cluster_s_service_are_its_endpoints(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    await router.put("clusters/shop", {"service": "orders"})
    check = TTLCheck(ttl=timedelta(minutes=1), check_id="orders-2")
    await consul.register_service(instance("orders", 9001, weight=3))
    await consul.register_service(instance("orders", 9002, checks=(check,)))
    snapshot = await router.wait_for_endpoints("shop", "orders-9001", "orders-9002")
    first = snapshot.endpoints["shop"].endpoints[0]
    assert (first.address, first.port, first.weight) == ("127.0.0.1", 9001, 3)

    await consul.fail_check("orders-2")
    await router.wait_for_endpoints("shop", "orders-9001")
    await consul.pass_check("orders-2")
    await router.wait_for_endpoints("shop", "orders-9001", "orders-9002")
    await consul.deregister_service("orders-9001")
    await router.wait_for_endpoints("shop", "orders-9002")
    await consul.deregister_service("orders-9002")
    await router.wait_for_endpoints("shop")


async def test_a_service_that_asks_for_it_has_a_route_below_the_operators(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    await consul.register_service(instance("payments", meta=EXPOSED))
    await router.wait_for_endpoints("payments", "payments-9001")
    await router.put("clusters/payments", {"service": "payments", "balancer": "round_robin"})
    await router.put("routes/all", {"match": {"path_prefix": "/"}, "to": "payments"})
    snapshot = await router.snapshot()
    assert [route.name for route in snapshot.table.routes] == ["all", "auto:payments"]
    automatic = snapshot.table.routes[1]
    assert automatic.match.path_prefix == "/payments"
    assert automatic.match.except_prefixes == ("/payments/metrics", "/payments/health")
    assert automatic.strip_prefix
    assert automatic.policies.upgrade == ("websocket",)
    assert snapshot.table.clusters["payments"].balancer == "round_robin"
    assert (await router.delete("routes/auto:payments")).status_code == 409

    await consul.register_service(instance("payments"))
    await wait_until(lambda: _is(router, ["all"]), what="the automatic route is gone")


async def test_a_service_s_own_routes_stand_below_the_operators_and_above_its_automatic_one(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    offer = encode_offer([{"name": "slow", "match": {"path_prefix": "/payments/slow"}, "policies": {"timeout": "60s"}}])
    await consul.register_service(instance("payments", meta={**EXPOSED, **offer}))
    await wait_until(lambda: _is(router, ["auto:payments:slow", "auto:payments"]), what="both routes are there")
    [entry, _] = await router.read("routes")
    assert entry["source"] == "service"
    await router.put("clusters/payments", {"service": "payments"})
    await router.put("routes/all", {"match": {"path_prefix": "/"}, "to": "payments"})
    assert (await route_names(router))[0] == "all"
    assert (await router.delete("routes/auto:payments:slow")).status_code == 409

    # A route that is not its own to ask for takes nothing from anybody, and is told.
    bad = encode_offer([{"name": "all", "match": {"path_prefix": "/"}}])
    await consul.register_service(instance("payments", 9002, meta={**EXPOSED, **bad}))
    await consul.register_service(instance("thief", 9003, meta=bad))
    await router.wait_for_endpoints("payments", "payments-9001", "payments-9002")

    async def told() -> bool:
        return {refused["service"] for refused in (await router.read("status"))["refused_offers"]} == {
            "payments",
            "thief",
        }

    await wait_until(told, what="the refusals are told")
    assert "/ is not below /thief" in str((await router.read("status"))["refused_offers"])
    assert await route_names(router) == ["all", "auto:payments:slow", "auto:payments"]

    await consul.deregister_service("payments-9001")
    await wait_until(lambda: _is(router, ["all", "auto:payments"]), what="the route left with its instance")


async def _is(router: RunningRouter, names: list[str]) -> bool:
    return await route_names(router) == names


async def test_no_automatic_route_stands_for_a_reserved_name_or_without_asking(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    for service, meta in (
        ("docs", EXPOSED),
        ("toska-x", EXPOSED),
        ("Odd_Name", EXPOSED),
        ("silent", {}),
        ("no", {META_EXPOSE: "false"}),
    ):
        await consul.register_service(instance(service, meta=meta))
    await consul.register_service(instance("asks", meta=EXPOSED))
    await router.wait_for_endpoints("asks", "asks-9001")
    assert await route_names(router) == ["auto:asks"]


async def test_a_registry_that_is_away_takes_nothing_away(
    registry_url: str, consul: ConsulClient, start_router: StartRouter, instance: MakeInstance
) -> None:
    await consul.register_service(instance("orders", meta=EXPOSED))
    async with wire_to(registry_url) as wire, start_router(registry_url=wire.url, registry_grace="0s") as router:
        before = await router.wait_for_endpoints("orders", "orders-9001")
        await wire.cut()
        await wait_until(lambda: _is_connected(router, expected=False), what="the router notices")
        assert (await router.read("status"))["registry"]["error"]
        assert await router.snapshot() == before
        assert (await router.http.get("/health/ready")).status_code == 200
        assert (await router.put("routes/new", {"match": {"path": "/new"}, "respond": {}})).status_code == 201
        assert await route_names(router) == ["new", "auto:orders"]
        wire.mend()
        await consul.register_service(instance("orders", 9002, meta=EXPOSED))
        await router.wait_for_endpoints("orders", "orders-9001", "orders-9002")
        await wait_until(lambda: _is_connected(router, expected=True), what="the router is back")


async def _is_connected(router: RunningRouter, *, expected: bool) -> bool:
    return (await router.read("status"))["registry"]["connected"] is expected


async def test_a_router_that_has_not_seen_the_registry_gives_no_snapshot_and_is_not_ready(
    registry_url: str, consul: ConsulClient, start_router: StartRouter
) -> None:
    async with wire_to(registry_url) as wire:
        await wire.cut()
        async with start_router(registry_url=wire.url) as router:
            assert (await router.http.get("/api/v1/snapshot")).status_code == 503
            polled = await router.http.post("/api/v1/snapshot", json={"gateway": "g", "wait_seconds": 0.05})
            assert polled.status_code == 503
            assert polled.headers["retry-after"] == "1"
            assert (await router.http.get("/health/startup")).status_code == 503
            assert (await router.http.get("/health/ready")).status_code == 503
            assert (await router.put("routes/new", {"match": {"path": "/new"}, "respond": {}})).status_code == 201
            wire.mend()
            assert await route_names(router) == ["new"]
            assert (await router.http.get("/health/ready")).status_code == 200


async def test_the_router_is_registered_while_it_runs(consul: ConsulClient, start_router: StartRouter) -> None:
    async with start_router() as router:

        async def is_listed() -> bool:
            entries, _ = await consul.health_service("toska-router", passing=True)
            return [f"{entry.address}:{entry.service.port}" for entry in entries] == [
                router.http.base_url.netloc.decode()
            ]

        await wait_until(is_listed, what="it is registered")
    assert (await consul.health_service("toska-router"))[0] == []


async def test_a_burst_of_changes_comes_as_few_snapshots(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    count = 30
    await router.put("clusters/shop", {"service": "orders"})
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(consul.register_service, instance("orders", 9000 + number))
    await router.wait_for_endpoints("shop", *(f"orders-{9000 + number}" for number in range(count)))
    metrics = (await router.http.get("/metrics")).text
    published = next(line for line in metrics.splitlines() if line.startswith("toska_router_snapshots_total"))
    assert float(published.split()[1]) < count

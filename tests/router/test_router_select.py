"""Endpoints for clients that balance by themselves: chosen by the data plane's own strategies."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_tests.control import control_mesh, web_server
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until

MakeInstance = Callable[..., ServiceRegistration]

PORTS = (9001, 9002, 9003)
SHOP = {
    "endpoints": [{"address": "127.0.0.1", "port": port, "zone": f"z{port % 2}"} for port in PORTS],
    "balancer": "round_robin",
}
KEYS = [f"127.0.0.1:{port}" for port in PORTS]


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


async def ask(router: RunningRouter, **wanted: Any) -> httpx.Response:
    return await router.http.post("/api/v1/select", json=wanted, headers=router.token("join"))


async def select(router: RunningRouter, **wanted: Any) -> dict[str, Any]:
    answer = await ask(router, **wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def tell(router: RunningRouter, *outcomes: dict[str, Any], reporter: str = "client-1") -> int:
    body = {"reporter": reporter, "outcomes": outcomes}
    answer = await router.http.post("/api/v1/select/report", json=body, headers=router.token("join"))
    assert answer.status_code == 200, answer.text
    return answer.json()["taken"]


async def test_the_cluster_s_own_strategy_chooses_unless_another_is_asked_for(router: RunningRouter) -> None:
    await router.put("clusters/shop", SHOP)
    turns = [(await select(router, cluster="shop"))["key"] for _ in range(6)]
    assert turns[:3] == turns[3:]
    assert sorted(turns[:3]) == KEYS
    for strategy in ("maglev", "ring_hash", "ip_hash"):
        chosen = {(await select(router, cluster="shop", strategy=strategy, hash_key="ann"))["key"] for _ in range(5)}
        assert len(chosen) == 1
        others = Counter(
            [
                (await select(router, cluster="shop", strategy=strategy, hash_key=f"client-{number}"))["key"]
                for number in range(30)
            ]
        )
        assert len(others) == 3
    found = await select(router, cluster="shop", strategy="peak_ewma")
    assert (found["strategy"], found["cluster"], found["endpoint"]["address"]) == ("peak_ewma", "shop", "127.0.0.1")
    assert found["version"] == (await router.snapshot()).version


async def test_what_is_excluded_is_not_chosen_and_the_zone_is_preferred(router: RunningRouter) -> None:
    await router.put("clusters/shop", SHOP)
    assert {(await select(router, cluster="shop", exclude=KEYS[:2]))["key"] for _ in range(3)} == {KEYS[2]}
    near = {(await select(router, cluster="shop", zone="z0"))["key"] for _ in range(6)}
    assert near == {"127.0.0.1:9002"}
    none_left = await ask(router, cluster="shop", exclude=KEYS)
    assert (none_left.status_code, none_left.json()["type"]) == (503, "/problems/no-endpoint-to-select")


async def test_a_service_s_instances_are_chosen_from_while_they_are_well(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    await router.put("clusters/orders", {"service": "orders"})
    await consul.register_service(instance("orders", 9001))
    await consul.register_service(instance("orders", 9002))
    await router.wait_for_endpoints("orders", "orders-9001", "orders-9002")
    for target in ({"service": "orders"}, {"cluster": "orders"}):
        turns = {(await select(router, **target, strategy="round_robin"))["key"] for _ in range(4)}
        assert turns == {"orders-9001", "orders-9002"}
    await consul.deregister_service("orders-9001")
    await router.wait_for_endpoints("orders", "orders-9002")
    assert {(await select(router, service="orders"))["key"] for _ in range(4)} == {"orders-9002"}


async def test_requests_that_are_selected_and_reported_are_what_the_strategies_go_by(router: RunningRouter) -> None:
    await router.put("clusters/shop", SHOP)
    busy = await select(router, cluster="shop", exclude=KEYS[1:])
    assert busy["figures"] == {
        "requests": 0,
        "failures": 0,
        "in_flight": 1,
        "latency_seconds": None,
        "mean_seconds": None,
    }
    others = [(await select(router, cluster="shop", strategy="least_request", exclude=KEYS[2:]))["key"]]
    assert others == [KEYS[1]]
    assert await tell(router, {"cluster": "shop", "endpoint": KEYS[0], "failures": 1, "seconds": 0.5}) == 1
    figures = (await select(router, cluster="shop", exclude=KEYS[1:]))["figures"]
    assert (figures["requests"], figures["failures"], figures["in_flight"]) == (1, 1, 1)
    assert figures["mean_seconds"] == 0.5
    assert 0.4 < figures["latency_seconds"] <= 0.5
    assert await tell(router, {"cluster": "shop", "endpoint": "gone:1"}, {"cluster": "lost", "endpoint": "x"}) == 0

    # What gateways have in flight counts too, whoever selected it.
    await tell(router, {"cluster": "shop", "endpoint": KEYS[1], "requests": 0, "in_flight": 50}, reporter="gateway")
    quiet = {
        (await select(router, cluster="shop", strategy="least_request", exclude=KEYS[2:]))["key"] for _ in range(5)
    }
    assert quiet == {KEYS[0]}


@pytest.mark.parametrize(
    ("wanted", "status", "field"),
    [
        ({}, 422, ""),
        ({"cluster": "shop", "service": "shop"}, 422, ""),
        ({"cluster": "shop", "strategy": "maglev"}, 422, "hash_key"),
        ({"cluster": "shop", "strategy": "luck"}, 422, "strategy"),
        ({"cluster": "shop", "exlude": []}, 422, "exlude"),
        ({"cluster": "nobody"}, 404, None),
        ({"service": "nobody"}, 404, None),
    ],
)
async def test_what_cannot_be_selected_says_why(
    router: RunningRouter, wanted: dict[str, Any], status: int, field: str | None
) -> None:
    await router.put("clusters/shop", SHOP)
    answer = await ask(router, **wanted)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if field:
        assert field in answer.text


async def test_selecting_takes_the_join_token(router: RunningRouter) -> None:
    for path in ("select", "select/report"):
        assert (await router.http.post(f"/api/v1/{path}", json={})).status_code == 401


async def test_what_gateways_have_seen_of_an_endpoint_is_told_with_it(home: Path) -> None:
    async def upstream(_: Any) -> Any:
        from aiohttp import web

        return web.Response(status=500)

    async with web_server(upstream) as port, control_mesh(home, "discovery", "router") as mesh:
        await mesh.start_gateway(report_interval="100ms")
        await mesh.register("orders", port)
        await mesh.until_answered(f"{mesh.data}/orders/", 500)

        async def is_known() -> bool:
            # What came before the gateway's first look at its counts, or in a report that got lost, is told by nobody.
            assert (await mesh.http.get(f"{mesh.data}/orders/")).status_code == 500
            answer = await mesh.http.post(
                f"{mesh.data}/api/v1/select", json={"service": "orders"}, headers=mesh.bearer("join")
            )
            return answer.status_code == 200 and answer.json()["figures"]["failures"] > 0

        await wait_until(is_known, within=30, what="the gateway's requests are known")

"""Chaos experiments on real traffic: they hit what they should, and end by themselves whatever happens."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from toska_common.clock import now_utc
from toska_tests.canaries import PATIENCE, ROLLOUT, ROUTE, Shop, until_phase
from toska_tests.gateways import cluster
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until

ABORT = {"abort": {"status": 503}}


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


@pytest.fixture
def router_options() -> Mapping[str, str]:
    return {"rollout_interval": "100ms"}


async def test_one_that_does_too_much_harm_is_stopped_and_says_what_it_did(router: RunningRouter, shop: Shop) -> None:
    stop = {"error_ratio": 0.2, "min_requests": 20, "window": "10s"}
    experiment = {"routes": ["pay"], "fault": ABORT, "duration": "1h", "stop": stop}
    assert (await router.put("experiments/chaos", experiment)).status_code == 201
    await wait_until(lambda: 503 in shop.statuses, within=PATIENCE)
    over = await until_phase(router, "experiments/chaos", "stopped")
    assert "failed lately; at most 20.0% may" in over["reason"]
    assert over["whole"]["aborted"] >= 4
    assert over["worst_error_ratio"] > 0.2
    lines = await router.read("experiments/chaos/history")
    assert [line["kind"] for line in lines] == ["created", "started", "stopped"]
    assert lines[-1]["status"]["whole"] == over["whole"]
    answered = len(shop.statuses)
    await wait_until(lambda: len(shop.statuses) > answered + 50 and set(shop.statuses[-50:]) == {200}, within=PATIENCE)


async def test_one_on_a_cluster_hits_nothing_else_and_ends_when_its_time_is_over(
    router: RunningRouter, shop: Shop
) -> None:
    await router.put("routes/pay", {**ROUTE, "to": [{"cluster": "old"}, {"cluster": "new"}]})
    experiment = {"clusters": ["new"], "fault": ABORT, "duration": "6s", "stop": {"error_ratio": 1}}
    await router.put("experiments/chaos", experiment)
    running = await until_phase(router, "experiments/chaos", "running")
    [overlay] = (await router.read("routes/pay"))["overlays"]
    assert (overlay["kind"], overlay["until"]) == ("experiment", running["ends_at"])
    await wait_until(lambda: 503 in shop.statuses, within=PATIENCE)
    served = shop.old.requests
    assert (await until_phase(router, "experiments/chaos", "finished"))["reason"] == "its time is over"
    assert now_utc() >= datetime.fromisoformat(running["ends_at"]) - timedelta(seconds=0.5)  # told in whole seconds
    assert shop.old.requests > served
    await wait_until(lambda: shop.new.requests > 0, within=PATIENCE)


async def test_one_is_ended_by_hand_and_by_the_next_leader(
    start_router: StartRouter, router: RunningRouter, home: Path
) -> None:
    for name, port in (("old", 9001), ("new", 9002)):
        await router.put(f"clusters/{name}", cluster(port))
    await router.put("routes/pay", ROUTE)
    experiment = {"routes": ["pay"], "fault": {"delay": {"fixed": "10ms"}}, "duration": "1h"}
    await router.put("experiments/chaos", experiment)
    await until_phase(router, "experiments/chaos", "running")
    assert (await router.put("rollouts/pay", ROLLOUT)).status_code == 409
    assert (await router.delete("experiments/chaos")).status_code == 409
    stop = "/api/v1/experiments/chaos/stop"
    assert (await router.http.post(stop, headers=router.token("admin"))).json()["status"]["phase"] == "stopped"
    assert (await router.http.post(stop, headers=router.token("admin"))).json()["type"] == "/problems/experiment-over"
    [route] = (await router.snapshot()).table.routes
    assert route.policies.fault is None

    assert (await router.put("experiments/chaos", experiment)).status_code == 200
    await until_phase(router, "experiments/chaos", "running")
    async with start_router(rollout_interval="100ms") as second:
        router.stop()
        over = await until_phase(second, "experiments/chaos", "stopped")
    assert "leads no more" in over["reason"]


async def test_what_cannot_be_tried_is_refused(router: RunningRouter) -> None:
    await router.put("clusters/old", cluster(9001))
    await router.put("routes/pay", {**ROUTE, "policies": {"fault": ABORT}})
    good = {"routes": ["pay"], "fault": ABORT, "duration": "1m"}
    for change, field, says in (
        ({}, "fault", "a fault of its own"),
        ({"routes": ["lost"]}, "routes[0]", "no route lost"),
        ({"routes": [], "clusters": ["lost"]}, "clusters[0]", "no route leads"),
        ({"duration": "25h"}, "", "between 1s and 24h"),
        ({"fault": {**ABORT, "until": "2030-01-01"}}, "", "follow from duration"),
        ({"clusters": ["old"]}, "", "either routes or clusters"),
    ):
        refused = await router.put("experiments/chaos", {**good, **change})
        assert refused.status_code == 422, change
        [problem] = refused.json()["problems"]
        assert says in problem["reason"]
        assert problem["field"].endswith(field)
    assert await router.read("experiments") == []

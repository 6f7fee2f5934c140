"""Rollouts and experiments on real traffic through a real Envoy: judged by what Envoy counts."""

from collections.abc import Mapping

import pytest
from toska_tests.canaries import PATIENCE, ROLLOUT, ROUTE, GatewayEngine, Shop, until_phase
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


@pytest.fixture
def router_options() -> Mapping[str, str]:
    return {"rollout_interval": "100ms"}


@pytest.fixture
def shop_engine() -> GatewayEngine:
    return "envoy"


async def test_a_canary_that_fails_behind_envoy_loses_everything(router: RunningRouter, shop: Shop) -> None:
    shop.new.status = 500
    await router.put("rollouts/pay", ROLLOUT)
    over = await until_phase(router, "rollouts/pay", "rolled_back")
    assert "failed" in over["reason"]
    evidence = (await router.read("rollouts/pay/history"))[-1]["evidence"]
    assert evidence["verdict"] == "bad"
    assert evidence["canary"]["reasons"].keys() == {"500"}
    assert evidence["baseline"]["failed"] == 0
    answered = len(shop.statuses)
    await wait_until(lambda: set(shop.statuses[-50:]) == {200} and len(shop.statuses) > answered + 50, within=PATIENCE)


async def test_a_canary_that_does_well_behind_envoy_gets_everything(router: RunningRouter, shop: Shop) -> None:
    await router.put("rollouts/pay", ROLLOUT)
    await until_phase(router, "rollouts/pay", "succeeded")
    lines = await router.read("rollouts/pay/history")
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("created", 0), ("started", 0), ("promoted", 0), ("succeeded", 1),
    ]  # fmt: skip
    promoted = lines[2]["evidence"]
    assert promoted["verdict"] == "good"
    assert min(promoted[side]["requests"] for side in ("canary", "baseline")) >= 20
    assert set(shop.statuses) == {200}


async def test_an_experiment_behind_envoy_hits_its_cluster_and_ends_when_its_time_is_over(
    router: RunningRouter, shop: Shop
) -> None:
    await router.put("routes/pay", {**ROUTE, "to": [{"cluster": "old"}, {"cluster": "new"}]})
    await wait_until(lambda: shop.new.requests > 0, within=PATIENCE)
    experiment = {
        "clusters": ["new"], "fault": {"abort": {"status": 503}}, "duration": "2s", "stop": {"error_ratio": 1},
    }  # fmt: skip
    await router.put("experiments/chaos", experiment)
    await wait_until(lambda: 503 in shop.statuses, within=PATIENCE)
    assert shop.statuses[-50:].count(200) > 0
    over = await until_phase(router, "experiments/chaos", "finished")
    assert over["whole"]["aborted"] >= 1
    served = shop.new.requests
    await wait_until(lambda: shop.new.requests > served and set(shop.statuses[-20:]) == {200}, within=PATIENCE)

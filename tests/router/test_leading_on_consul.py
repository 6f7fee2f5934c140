"""Leading rollouts by the lock of a real Consul: one router at a time, whatever becomes of its session."""

from toska_common.clients.consul import ConsulClient
from toska_router.runs.leading import LOCK
from toska_tests.canaries import ROLLOUT, ROUTE
from toska_tests.gateways import cluster
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until

PATIENCE = 30.0


async def until_led(router: RunningRouter, *leaders: RunningRouter) -> RunningRouter:
    """Wait until the rollout runs, led by one of these."""
    found: list[RunningRouter] = []

    async def is_led() -> bool:
        entry = await router.read("rollouts/pay")
        found[:] = [one for one in leaders if entry["leader"].endswith(f":{one.http.base_url.port}")]
        return bool(found) and entry["status"]["phase"] == "running"

    await wait_until(is_led, within=PATIENCE, what="the rollout is led")
    return found[0]


async def test_a_lock_that_is_lost_or_given_back_is_the_next_router_s(
    start_router: StartRouter, consul: ConsulClient
) -> None:
    async with start_router(rollout_interval="100ms") as one, start_router(rollout_interval="100ms") as two:
        for name, port in (("old", 9001), ("new", 9002)):
            await one.put(f"clusters/{name}", cluster(port))
        await one.put("routes/pay", ROUTE)
        await one.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
        first = await until_led(one, one, two)
        held, _ = await consul.kv_get(LOCK)
        assert held is not None
        assert held.value.decode().endswith(f":{first.http.base_url.port}")

        await consul.destroy_session(held.session)

        async def is_taken_over() -> bool:
            return [line["kind"] for line in await one.read("rollouts/pay/history")][2:] == ["taken_over"]

        await wait_until(is_taken_over, within=PATIENCE, what="the lock is held again")
        now, _ = await consul.kv_get(LOCK)
        assert now is not None
        assert now.session not in ("", held.session)

        leader = one if now.value.decode().endswith(f":{one.http.base_url.port}") else two
        left = two if leader is one else one
        leader.stop()
        await until_led(left, left)
        assert (await left.read("rollouts/pay"))["status"]["step"] == 0
    gone, _ = await consul.kv_get(LOCK)
    assert gone is not None
    assert gone.session == ""

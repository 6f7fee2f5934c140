"""A real Envoy as the gateway's data plane: changes without a restart, refusals, restarts and counts."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_gateway.envoy.process import EnvoyProcess
from toska_gateway.errors import RenewalFailed, SnapshotRejected
from toska_tests.envoys import EnvoyGateway, running_envoy
from toska_tests.gateways import cluster, route
from toska_tests.raw_http import Upstream, answering, connect, connected, get, response, upstream
from toska_tests.waiting import wait_until


@pytest.fixture
async def app() -> AsyncGenerator[Upstream]:
    async with upstream(answering(response(200, body=b"ok"))) as running:
        yield running


def _to(port: int, *names: str, **policies: Any) -> dict[str, Any]:
    routes = [route(name, f"/{name}", policies=policies) for name in names or ("a",)]
    return {"clusters": {"app": cluster(port)}, "routes": routes}


async def _ask(envoy: EnvoyGateway, target: str) -> int:
    client = await connect(envoy.address)
    try:
        return (await client.ask(get(target))).status
    finally:
        await client.aclose()


async def test_a_change_is_in_force_once_it_was_applied(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    pid = envoy.pid
    assert (await _ask(envoy, "/a"), await _ask(envoy, "/b")) == (200, 404)
    await envoy.serve(_to(app.port, "b"))
    assert (await _ask(envoy, "/a"), await _ask(envoy, "/b")) == (404, 200)
    assert envoy.pid == pid


async def test_what_envoy_cannot_do_is_refused_and_the_routing_before_stays(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    with pytest.raises(SnapshotRejected) as refused:
        await envoy.serve(_to(app.port, "b", cache={}))
    assert refused.value.problems == [
        {"field": "routes[0].policies.cache", "reason": 'route "b": Envoy keeps no responses here'}
    ]
    assert await _ask(envoy, "/a") == 200


async def test_what_envoy_itself_refuses_is_told_in_its_words_and_taken_back(
    envoy: EnvoyGateway, app: Upstream
) -> None:
    await envoy.serve(_to(app.port, "a"))
    broken = {**_to(app.port, "b"), "server": {"access_log": {"path": "/nowhere/at/all.log"}}}
    with pytest.raises(SnapshotRejected) as refused:
        await envoy.serve(broken)
    assert "/nowhere/at/all.log" in refused.value.problems[0]["reason"]
    assert await _ask(envoy, "/a") == 200
    await envoy.serve(_to(app.port, "c"))
    assert (await _ask(envoy, "/a"), await _ask(envoy, "/c")) == (404, 200)


async def test_an_envoy_that_dies_is_started_anew_with_the_routing_in_force(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    before = envoy.pid
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        try:
            return await _ask(envoy, "/a") == 200 and envoy.pid != before
        except OSError:
            return False

    await wait_until(back, within=20, what="another Envoy serves")


async def test_an_envoy_that_is_being_started_anew_is_told_what_changes_meanwhile(
    envoy: EnvoyGateway, app: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has been told everything before, and is not yet known to serve."""
    until_live, go_on = EnvoyProcess.until_live, asyncio.Event()

    async def known_later(process: EnvoyProcess) -> None:
        await until_live(process)
        await go_on.wait()

    async def answers(target: str) -> bool:
        try:
            return await _ask(envoy, target) == 200
        except OSError:
            return False

    await envoy.serve(_to(app.port, "a"))
    monkeypatch.setattr(EnvoyProcess, "until_live", known_later)
    os.kill(envoy.pid, signal.SIGKILL)
    await wait_until(lambda: envoy.pid == 0, what="its end is noticed")
    await wait_until(lambda: answers("/a"), what="another Envoy serves")
    with pytest.raises(RenewalFailed, match="being started"):
        await envoy.plane.renew()
    await envoy.serve(_to(app.port, "b"))
    go_on.set()
    await wait_until(lambda: answers("/b"), what="it has heard of the change")
    await wait_until(lambda: envoy.pid != 0, what="it is known to serve")
    assert await _ask(envoy, "/a") == 404


async def test_renewing_replaces_envoy_without_losing_a_request(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    before = envoy.pid
    (successor,) = await envoy.plane.renew()
    assert successor.pid != before
    assert [await _ask(envoy, "/a") for _ in range(20)] == [200] * 20


async def test_a_successor_can_be_succeeded(app: Upstream) -> None:
    """A process that does not find the one before it, which it is to end, stands still for ten seconds and aborts."""
    async with running_envoy(_to(app.port, "a"), drain_s=1) as envoy:
        pids = [envoy.pid]
        for _ in range(3):
            (successor,) = await envoy.plane.renew()
            pids.append(successor.pid)
            assert [await _ask(envoy, "/a") for _ in range(5)] == [200] * 5
        await wait_until(lambda: [one.pid for one in envoy.plane.workers()] == pids[-1:], what="the others have ended")


async def test_the_connections_of_an_envoy_that_has_ended_are_counted_no_more(app: Upstream) -> None:
    async with running_envoy(_to(app.port, "a"), drain_s=1) as envoy:

        async def connections() -> str:
            lines = (await envoy.plane.metrics()).splitlines()
            return next(line.rpartition(" ")[2] for line in lines if line.startswith("toska_gateway_connections "))

        async def has_one() -> bool:
            return float(await connections()) == 1

        async with connected(envoy.address) as client:
            assert (await client.ask(get("/a"))).status == 200
            await wait_until(has_one, what="the connection is told")
            (successor,) = await envoy.plane.renew()
            await wait_until(lambda: [one.pid for one in envoy.plane.workers()] == [successor.pid], what="its end")
        assert float(await connections()) == 0


async def test_what_envoy_counts_is_told_by_route_cluster_and_endpoint(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "counted"))
    before = await envoy.stats()
    for _ in range(3):
        assert await _ask(envoy, "/counted") == 200
    assert await _ask(envoy, "/nowhere") == 404
    after = before

    async def are_counted() -> bool:
        nonlocal after  # Envoy counts a request when it is over for it, too
        after = await envoy.stats()
        counted = envoy.news(before, after, "counted"), envoy.news(before, after, "(none)")
        return counted == ({"200": 3}, {"404": 1})

    await wait_until(are_counted)
    (told,) = [one for one in after.clusters if one.name == "app"]
    assert told.attempts >= 3
    assert f"127.0.0.1:{app.port}" in {one.key for one in told.endpoints}
    page = await envoy.plane.metrics()
    assert 'toska_gateway_requests_total{route="counted",status="200"}' in page
    assert 'toska_gateway_errors_total{route="(none)",code="no-route"}' in page
    assert 'toska_gateway_request_duration_seconds_bucket{route="counted",le="+Inf"}' in page


async def test_what_was_counted_stays_when_envoy_forgets_a_listener_that_was_replaced(app: Upstream) -> None:
    async with running_envoy(_to(app.port, "a"), drain_s=1) as envoy:

        async def is_forgotten() -> bool:
            process = envoy.plane._slot.current  # pyright: ignore[reportPrivateUsage]
            assert process is not None
            told = await process.admin.stats("^listener_manager.total_(listeners|filter_chains)_draining$")
            return len(told) == 2 and set(told.values()) == {"0"}

        for asked in (1, 2, 3):
            assert await _ask(envoy, "/a") == 200

            async def is_counted(asked: int = asked) -> bool:
                (told,) = [one for one in (await envoy.stats()).routes if one.name == "a"]
                return told.statuses == {"200": asked} and sum(told.buckets) == asked

            await wait_until(is_counted, what=f"{asked} requests")
            await envoy.serve({**_to(app.port, "a"), "server": {"limits": {"headers": 50 + asked}}})
            await wait_until(is_forgotten, what="the listener before is gone")
            assert await is_counted()


async def test_the_meshs_own_tokens_do_not_reach_a_users_cluster(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    client = await connect(envoy.address)
    shown = "Authorization: Bearer toska_admin_x", "Cookie: a=1; s=toska_admin_x; b=2", "X-Consul-Token: toska_join_x"
    assert (await client.ask(get("/a?x=1&token=toska_admin_x&y=2", *shown))).status == 200
    seen = app.requests[-1]
    assert seen.target == "/a?x=1&y=2"
    assert [seen.value(name) for name in ("authorization", "cookie", "x-consul-token")] == [None, b"a=1; b=2", None]
    assert (await client.ask(get("/a", "Authorization: Bearer mine", "Cookie: a=1"))).status == 200
    assert [app.requests[-1].value(name) for name in ("authorization", "cookie")] == [b"Bearer mine", b"a=1"]
    await client.aclose()


async def test_envoy_is_told_addresses_only_and_none_that_the_mesh_refuses(app: Upstream) -> None:
    async with running_envoy(management=[("127.0.0.1", app.port)]) as envoy:
        await envoy.serve(_to(app.port, "a"))
        assert await _ask(envoy, "/a") == 503
    assert not app.requests
    async with running_envoy() as envoy:
        named = {"endpoints": [{"address": "localhost", "port": app.port}]}
        await envoy.serve({"clusters": {"app": named}, "routes": [route("a", "/a")]})
        assert await _ask(envoy, "/a") == 200


async def test_filters_that_come_and_go_take_their_routes_along(envoy: EnvoyGateway, app: Upstream) -> None:
    for turn in range(3):
        told: dict[str, Any] = {"headers": {"response": {"set": {"x-turn": str(turn)}}}}
        for more in ({}, {"ip": {"allow": ["127.0.0.0/8"]}}):
            await envoy.serve(_to(app.port, "a", **told, **more))
            assert await _ask(envoy, "/a") == 200


async def test_hundreds_of_clusters_are_served(envoy: EnvoyGateway, app: Upstream) -> None:
    names = [f"c{number}" for number in range(300)]
    document = {
        "clusters": {name: cluster(app.port) for name in names},
        "routes": [route(name, f"/{name}", name) for name in names],
    }
    await envoy.serve(document)
    pid = envoy.pid
    assert [await _ask(envoy, f"/{name}") for name in names[::50]] == [200] * 6
    assert envoy.pid == pid


async def test_envoys_own_answers_are_problems_with_the_requests_id(envoy: EnvoyGateway, app: Upstream) -> None:
    await envoy.serve(_to(app.port, "a"))
    client = await connect(envoy.address)
    answer = await client.ask(get("/nowhere"))
    await client.aclose()
    assert answer.value("content-type") == b"application/problem+json"
    told = json.loads(answer.body)
    assert (told["type"], told["status"]) == ("/problems/no-route", 404)
    assert len(told["request_id"]) == 36

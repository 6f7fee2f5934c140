"""Rollouts on real traffic: through a gateway's workers, judged by the router that holds the registry's lock."""

import contextlib
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from toska_common.clients.consul import ConsulClient
from toska_router.runs.leading import LOCK
from toska_tests.canaries import PATIENCE, ROLLOUT, ROUTE, Shop, status_of, until_phase
from toska_tests.gateways import cluster
from toska_tests.ports import free_ports
from toska_tests.programs import finished, running
from toska_tests.routers import RunningRouter, StartRouter, poll_body
from toska_tests.waiting import wait_until


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


@pytest.fixture
def router_options() -> Mapping[str, str]:
    return {"rollout_interval": "100ms"}


async def history(router: RunningRouter, name: str = "pay") -> list[tuple[str, int]]:
    return [(line["kind"], line["step"]) for line in await router.read(f"rollouts/{name}/history")]


async def test_a_good_canary_gets_everything_and_the_route_is_changed_for_good(
    router: RunningRouter, shop: Shop
) -> None:
    assert (await router.put("rollouts/pay", ROLLOUT)).status_code == 201
    await until_phase(router, "rollouts/pay", "succeeded")

    async def is_adopted() -> bool:
        return (await router.read("routes/pay"))["route"]["to"] == [{"cluster": "new"}]

    await wait_until(is_adopted, within=PATIENCE)
    assert await history(router) == [("created", 0), ("started", 0), ("promoted", 0), ("succeeded", 1)]
    promoted = (await router.read("rollouts/pay/history"))[2]["evidence"]
    assert promoted["verdict"] == "good"
    assert min(promoted[side]["requests"] for side in ("canary", "baseline")) >= 20
    assert [one["check"] for one in promoted["comparisons"]] == ["errors"]
    seen = shop.old.requests
    revision = (await router.read("revisions"))[0]
    assert (revision["source"], revision["actor"]) == ("rollout", "pay")
    served = shop.new.requests
    await wait_until(lambda: shop.new.requests > served + 20)
    assert shop.old.requests <= seen + 5  # what was on its way
    assert set(shop.statuses) == {200}


async def test_a_failing_canary_loses_everything_and_the_route_stays_as_it_was(
    router: RunningRouter, shop: Shop
) -> None:
    shop.new.status = 500
    await router.put("rollouts/pay", ROLLOUT)
    over = await until_phase(router, "rollouts/pay", "rolled_back")
    assert "failed" in over["reason"]
    entry = await router.read("routes/pay")
    assert "overlays" not in entry
    assert entry["route"]["to"] == [{"cluster": "old"}]
    lines = await router.read("rollouts/pay/history")
    assert [line["kind"] for line in lines] == ["created", "started", "rolled_back"]
    assert lines[-1]["evidence"]["verdict"] == "bad"
    assert lines[-1]["evidence"]["canary"]["reasons"].keys() == {"500"}
    answered = len(shop.statuses)
    await wait_until(lambda: set(shop.statuses[-50:]) == {200} and len(shop.statuses) > answered + 50, within=PATIENCE)


async def test_while_it_runs_it_stands_for_the_route_and_everybody_can_see(router: RunningRouter, shop: Shop) -> None:
    version = (await router.read("routes/pay"))["version"]
    await router.put("rollouts/pay", {**ROLLOUT, "steps": [25, 100], "hold": "5m"})
    await until_phase(router, "rollouts/pay", "running")
    entry = await router.read("routes/pay")
    assert (entry["route"]["to"], entry["version"]) == ([{"cluster": "old"}], version)
    [overlay] = entry["overlays"]
    assert (overlay["kind"], overlay["name"]) == ("rollout", "pay")
    weights = [{"cluster": "new", "weight": 2500}, {"cluster": "old", "weight": 7500}]
    assert [{key: part[key] for key in ("cluster", "weight")} for part in overlay["to"]] == weights
    [route] = (await router.snapshot()).table.routes
    assert {part.cluster: part.weight for part in route.to} == {"new": 2500, "old": 7500}
    assert route.policies.watch is not None
    assert route.policies.watch.startswith("rollout:pay:")
    leader = (await router.read("rollouts/pay"))["leader"]
    assert leader.endswith(f":{router.http.base_url.port}")


async def test_a_change_of_the_route_by_hand_takes_the_rollout_s_place(router: RunningRouter, shop: Shop) -> None:
    await router.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(router, "rollouts/pay", "running")
    await router.put("routes/pay", {**ROUTE, "policies": {"timeout": "9s"}})
    assert "overlays" in await router.read("routes/pay"), "another timeout does not change where it leads"
    by_hand = [{"cluster": "old", "weight": 3}, {"cluster": "new", "weight": 1}]
    await router.put("routes/pay", {**ROUTE, "to": by_hand})
    assert "overlays" not in await router.read("routes/pay")
    over = await until_phase(router, "rollouts/pay", "superseded")
    assert "changed by hand" in over["reason"]
    [route] = (await router.snapshot()).table.routes
    assert [part.weight for part in route.to] == [3, 1]
    assert route.policies.watch is None


async def test_a_rollback_takes_a_canary_that_had_traffic_before_off_until_the_rollout_is_deleted(
    router: RunningRouter, shop: Shop
) -> None:
    split = [{"cluster": "old", "weight": 9}, {"cluster": "new", "weight": 1}]
    await router.put("routes/pay", {**ROUTE, "to": split})
    await router.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(router, "rollouts/pay", "running")
    back = await act(router, "rollback")
    assert (back.status_code, back.json()["status"]["percent"], back.json()["status"]["in_force"]) == (200, 0, True)
    [route] = (await router.snapshot()).table.routes
    assert [part.cluster for part in route.to] == ["old"]
    assert (await router.delete("rollouts/pay")).status_code == 204
    [route] = (await router.snapshot()).table.routes
    assert [(part.cluster, part.weight) for part in route.to] == [("old", 9), ("new", 1)]
    assert (await router.http.get("/api/v1/rollouts/pay")).status_code == 404


async def act(router: RunningRouter, action: str, **headers: str) -> Any:
    return await router.http.post(
        f"/api/v1/rollouts/pay/{action}", headers={**router.token("admin"), "x-toska-actor": "ann", **headers}
    )


@pytest.fixture
async def table(router: RunningRouter) -> RunningRouter:
    """Two clusters and a route, with nobody there."""
    for name, port in (("old", 9001), ("new", 9002)):
        await router.put(f"clusters/{name}", cluster(port))
    await router.put("routes/pay", ROUTE)
    return router


async def test_operators_promote_pause_resume_and_roll_back(table: RunningRouter) -> None:
    await table.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(table, "rollouts/pay", "running")
    etag = (await table.http.get("/api/v1/rollouts/pay")).headers["etag"]
    assert (await act(table, "resume")).json()["type"] == "/problems/rollout-not-under-way"
    assert (await act(table, "pause", **{"if-match": etag})).json()["status"]["phase"] == "paused"
    assert (await act(table, "promote", **{"if-match": etag})).status_code == 412
    assert (await act(table, "resume")).json()["status"]["phase"] == "running"
    promoted = (await act(table, "promote")).json()["status"]
    assert (promoted["step"], promoted["percent"]) == (1, 100)
    assert (await act(table, "rollback")).json()["status"]["reason"] == "rolled back by ann"
    assert (await act(table, "promote")).status_code == 409
    metrics = (await table.http.get("/metrics", headers=table.token("admin"))).text
    assert 'toska_router_rollouts{phase="rolled_back"} 1.0' in metrics
    assert (await act(table, "sing")).status_code == 422
    lines = [(line["kind"], line["by"]) for line in await table.read("rollouts/pay/history")]
    assert lines == [
        ("created", "admin"), ("started", "rollout"), ("paused", "ann"), ("resumed", "ann"), ("promoted", "ann"),
        ("rolled_back", "ann"),
    ]  # fmt: skip


async def test_what_does_not_fit_is_refused_with_its_field(table: RunningRouter) -> None:
    refused = await table.put("rollouts/pay", {**ROLLOUT, "canary": "newer", "route": "lost"})
    assert refused.status_code == 422
    assert [problem["field"] for problem in refused.json()["problems"]] == ["canary", "route"]
    assert (await table.put("rollouts/pay", {**ROLLOUT, "hold": 5})).json()["problems"][0]["field"] == "hold"
    assert (await table.put("rollouts/pay", {**ROLLOUT, "name": "other"})).status_code == 422
    await table.put("clusters/third", cluster(9003))
    await table.put("routes/pay", {**ROUTE, "to": [{"cluster": "old"}, {"cluster": "third"}]})
    elsewhere = await table.put("rollouts/pay", ROLLOUT)
    assert "does not lead to old" in elsewhere.json()["detail"]
    assert (await table.http.put("/api/v1/rollouts/pay", json=dict(ROLLOUT))).status_code == 401
    assert await table.read("rollouts") == []
    assert (await table.put("rollouts/pay?dry_run=true", ROLLOUT)).json()["problems"][0]["field"] == "dry_run"
    assert (await table.put("rollouts/pay", ROLLOUT, **{"x-toska-actor": "rollout"})).status_code == 422
    assert await table.read("rollouts") == []
    by_hand = await table.put("routes/pay", {**ROUTE, "policies": {"watch": "mine"}})
    assert "rollouts and experiments alone" in by_hand.text


async def test_one_route_has_one_rollout_and_one_that_is_over_begins_anew(table: RunningRouter) -> None:
    assert (await table.put("rollouts/pay", ROLLOUT)).status_code == 201
    assert (await table.put("rollouts/pay", ROLLOUT)).json()["type"] == "/problems/rollout-under-way"
    assert (await table.put("rollouts/other", ROLLOUT)).status_code == 409
    assert (await table.delete("rollouts/lost")).status_code == 404
    await until_phase(table, "rollouts/pay", "running")
    assert (await table.delete("rollouts/pay")).status_code == 409
    await act(table, "rollback")
    assert (await table.put("rollouts/pay", ROLLOUT, **{"if-none-match": "*"})).status_code == 412
    assert (await table.put("rollouts/pay", ROLLOUT)).status_code == 200
    assert (await status_of(table, "rollouts/pay"))["run"] == 2


async def token_of(router: RunningRouter) -> str:
    """What gateways count the present step under."""
    [route] = (await router.snapshot()).table.routes
    return route.policies.watch or ""


async def report(
    router: RunningRouter, token: str, requests: int, epoch: str = "a", sequence: int = 1, credential: str = "admin"
) -> None:
    """Tell, as a gateway, how many requests the canary has had."""
    tally = {"token": token, "cells": {"new": {"requests": requests, "buckets": {"3": requests}}}}
    body = poll_body(wait=0, counted={"epoch": epoch, "sequence": sequence, "tallies": [tally]})
    headers = router.token(credential) if credential else {}
    (await router.http.post("/api/v1/snapshot", json=body, headers=headers)).raise_for_status()


async def until_counted(router: RunningRouter, requests: int) -> None:
    """Wait until the canary is known to have had so many."""

    async def counts() -> bool:
        evidence = (await status_of(router, "rollouts/pay"))["evidence"]
        return evidence is not None and evidence["canary"]["requests"] == requests

    await wait_until(counts, within=PATIENCE, what=f"{requests} requests are counted")


async def test_one_that_was_deleted_and_begun_again_hears_nothing_of_the_first(table: RunningRouter) -> None:
    await table.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(table, "rollouts/pay", "running")
    first = await token_of(table)
    await act(table, "rollback")
    await table.delete("rollouts/pay")
    await table.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(table, "rollouts/pay", "running")
    await report(table, first, 1000, epoch="b")  # as gateways do for a minute
    await report(table, await token_of(table), 5)
    await until_counted(table, 5)


async def test_each_gateway_counts_once_whatever_comes_twice_late_or_from_strangers(table: RunningRouter) -> None:
    await table.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
    await until_phase(table, "rollouts/pay", "running")

    token = await token_of(table)
    for sequence, requests in ((1, 10), (3, 30), (3, 30), (2, 20)):
        await report(table, token, requests, sequence=sequence)
    await report(table, token, 5, epoch="b")
    await report(table, token, 1000, epoch="stranger", credential="")
    await report(table, token, 1000, epoch="joined", credential="join")
    await until_counted(table, 35)
    await report(table, token, 31, sequence=4)
    await report(table, token, 7, epoch="a2")  # the same gateway, started anew
    await until_counted(table, 43)


async def test_a_killed_leader_is_followed_by_the_next_which_goes_on_with_what_was_seen(
    home: Path, registry_url: str, tmp_path: Path, start_router: StartRouter, consul: ConsulClient
) -> None:
    environment = {
        "TOSKA_ROUTER_PORT": str(free_ports(1)),
        "TOSKA_REGISTRY_URL": registry_url,
        "TOSKA_ROUTER_ROLLOUT_INTERVAL": "100ms",
    }
    command = [sys.executable, "-m", "toska_router"]
    with running(command, tmp_path, environment=environment) as first:
        url = f"http://127.0.0.1:{environment['TOSKA_ROUTER_PORT']}"
        async with httpx.AsyncClient(base_url=url) as client:
            await wait_until(lambda: first_answers(client), within=PATIENCE, what=first.stderr)
            leading = RunningRouter(home, client, anyio.CancelScope())
            for name, port in (("old", 9001), ("new", 9002)):
                await leading.put(f"clusters/{name}", cluster(port))
            await leading.put("routes/pay", ROUTE)
            await leading.put("rollouts/pay", {**ROLLOUT, "hold": "5m"})
            await until_phase(leading, "rollouts/pay", "running")
            await act(leading, "promote")
        async with start_router(rollout_interval="100ms") as second:
            first.send(signal.SIGKILL)
            # What the registry does by itself when the session's time is over, which takes it 10 to 20 s.
            held, _ = await consul.kv_get(LOCK)
            assert held is not None
            await consul.destroy_session(held.session)

            async def is_followed() -> bool:
                leader = (await second.read("rollouts/pay"))["leader"]
                return leader.endswith(f":{second.http.base_url.port}") and ("taken_over", 1) in await history(second)

            await wait_until(is_followed, within=PATIENCE)
            now = await status_of(second, "rollouts/pay")
            assert (now["phase"], now["step"], now["percent"]) == ("running", 1, 100)


async def first_answers(client: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get("/health/ready")).status_code == 200
    return False


async def test_the_commands_of_the_page_work_in_their_order(router: RunningRouter, home: Path, tmp_path: Path) -> None:
    (tmp_path / ".toska").symlink_to(home)
    page = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script = "\n".join(commands).replace("http://127.0.0.1:8102", str(router.http.base_url).rstrip("/"))
    done = await finished(["bash", "-e", "-u", "-c", script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert "rolled back by ann" in done.stdout.decode()
    assert await router.read("routes") == await router.read("rollouts") == await router.read("experiments") == []

"""Apps report with each renewal how they do and who calls them; their share of traffic follows."""

import json
from typing import Any

import anyio
from toska_tests.joined import Stage
from toska_tests.waiting import wait_until

FAST = {"TOSKA_LEASE_TTL": "1s"}


async def report_of(stage: Stage, service: str) -> dict[str, Any]:
    """The last report of a service's instance, as Consul's agent shows it."""
    [entry] = await stage.registry.wait_for(service, 1)
    url = f"{stage.registry.rest}/api/v1/services/{entry['Service']['ID']}"
    return (await stage.registry.get_json(url))["report"] or {}


async def test_an_app_that_fails_loses_traffic_step_by_step(stage: Stage) -> None:
    with stage.serve("failing-shop", environment=FAST) as shop:
        await stage.registry.wait_for("failing-shop", 1)
        for _ in range(20):
            await shop.get("/crash")

        scores: list[str] = []

        async def has_less() -> bool:
            await shop.get("/crash")  # so that every report has some
            [entry] = await stage.registry.wait_for("failing-shop", 1)
            assert entry["Service"]["Meta"]["team"] == "shops"
            scores.append(entry["Service"]["Meta"].get("toska-score", "1"))
            report = await report_of(stage, "failing-shop")
            return scores[-1] != "1" and (report.get("score"), report.get("error_ratio")) == (0, 1)

        await wait_until(has_less)
        assert set(scores) <= {"1", "0.75", "0.5", "0.25"}


async def test_callers_of_all_workers_are_reported_by_the_callee(stage: Stage) -> None:
    with (
        stage.serve("called-shop", "--workers", "2", environment=FAST) as called,
        stage.serve("calling-shop", environment=FAST) as calling,
    ):
        await stage.registry.wait_for("called-shop", 1)
        pids: set[int] = set()

        async def both_have_served() -> bool:
            # A connection of its own each time, so that the kernel may give it to either worker.
            pids.add((await called.get("/server", headers={"x-toska-caller": "curious"})).json()["pid"])
            return len(pids) == 2

        await wait_until(both_have_served)
        for _ in range(5):
            assert (await calling.get("/call/called-shop/items/7")).status_code == 200

        async def are_told() -> bool:
            callers = (await report_of(stage, "called-shop")).get("callers", {})
            return callers.get("calling-shop") == 5 and callers.get("curious", 0) >= 2

        await wait_until(are_told, what="the callers that both workers saw")
        graph = await stage.registry.get_json(f"{stage.registry.rest}/api/v1/services/graph?name=called-shop")
        edges = {(edge["caller"], edge["callee"]): edge for edge in graph["edges"]}
        edge = edges["calling-shop", "called-shop"]
        assert (edge["observed"], edge["declared"], edge["requests"]) == (True, False, 5)


async def test_reports_wake_nobody_who_watches_the_service(stage: Stage) -> None:
    with stage.serve("quiet-shop", environment=FAST) as shop:
        await stage.registry.wait_for("quiet-shop", 1)
        url = f"{stage.registry.url}/v1/health/service/quiet-shop"

        async def nobody_is_woken() -> bool:
            await stage.registry.wait_for("quiet-shop", 1)
            index = await stage.registry.get_index(url)
            for _ in range(3):
                await shop.get("/items/1")
                await anyio.sleep(0.5)  # the span over which nothing must happen
            assert (await report_of(stage, "quiet-shop"))["requests"] >= 2
            return await stage.registry.get_index(url) == index

        await wait_until(nobody_is_woken, what="a lease that does not lapse meanwhile, and no news")
        [entry] = await stage.registry.wait_for("quiet-shop", 1)
        assert json.dumps(entry).count("requests") == 0

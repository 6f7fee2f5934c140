"""Lists, pages and finding by what is asked for, on its own registry and on a real Consul."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from toska_tests.discovery_rest import SERVICES, found, register, wait_for
from toska_tests.waiting import wait_until


async def listed(http: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = (await http.get(f"{SERVICES}/instances", params=query)).raise_for_status()
    return [item["id"] for item in answer.json()]


@pytest.fixture
async def shop(http: httpx.AsyncClient, name: str) -> AsyncGenerator[str]:
    """A service of three instances that differ in all that can be asked for."""
    kinds: list[dict[str, Any]] = [
        {"version": "1.0", "region": "eu", "zone": "eu-1", "tags": ["slow"], "capabilities": ["pdf"], "weight": 1},
        {"version": "2.0", "region": "eu", "zone": "eu-2", "tags": ["fast", "new"], "capabilities": ["pdf", "csv"]},
        {"version": "2.0", "region": "us", "zone": "us-1", "type": "batch", "metadata": {"team": "Blue Whales"}},
    ]
    for number, kind in enumerate(kinds, 1):
        await register(http, name, id=f"{name}-{number}", **kind)
    await wait_for(http, name, *(f"{name}-{number}" for number in (1, 2, 3)), order="id")
    yield name
    for number in (1, 2, 3):
        await http.delete(f"{SERVICES}/{name}-{number}")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"version": "2.0"}, "23"),
        ({"region": "eu"}, "12"),
        ({"region": "eu", "version": "2.0"}, "2"),
        ({"zone": "us-1"}, "3"),
        ({"tag": ["fast", "new"]}, "2"),
        ({"tag": ["fast", "slow"]}, ""),
        ({"capability": "pdf"}, "12"),
        ({"capability": ["csv", "pdf"]}, "2"),
        ({"type": "batch"}, "3"),
        ({"q": "whales BLUE"}, "3"),
        ({"q": "whales pdf"}, ""),
        ({"health": "critical"}, ""),
        ({"health": ["critical", "passing"]}, "123"),
    ],
)
async def test_filters_choose_instances_and_all_must_hold(
    http: httpx.AsyncClient, shop: str, query: dict[str, Any], expected: str
) -> None:
    ids = [f"{shop}-{number}" for number in expected]
    assert await listed(http, name=shop, **query) == ids
    assert [item["id"] for item in await found(http, shop, order="id", **query)] == ids
    services = (await http.get(SERVICES, params={**query, "q": f"{shop} {query.get('q', '')}"})).json()
    assert [(item["name"], item["passing"]) for item in services] == ([(shop, len(ids))] if ids else [])


async def test_a_service_tells_the_versions_regions_and_zones_of_what_was_asked_for(
    http: httpx.AsyncClient, shop: str
) -> None:
    (summary,) = (await http.get(SERVICES, params={"q": shop})).json()
    assert summary["versions"] == ["1.0", "2.0"]
    assert summary["regions"] == ["eu", "us"]
    assert summary["zones"] == ["eu-1", "eu-2", "us-1"]
    (summary,) = (await http.get(SERVICES, params={"q": shop, "version": "1.0"})).json()
    assert (summary["versions"], summary["passing"], summary["zones"]) == (["1.0"], 1, ["eu-1"])


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("id", "123"), ("-id", "123"), ("version", "123"), ("-version", "231"), ("registered", "123")],
)
async def test_instances_are_sorted_and_equals_come_by_id(
    http: httpx.AsyncClient, shop: str, sort: str, expected: str
) -> None:
    assert await listed(http, name=shop, sort=sort) == [f"{shop}-{number}" for number in expected]


@pytest.mark.parametrize("sort", ["name", "-instances"])
async def test_pages_by_cursor_are_the_whole_list_with_one_total_also_while_others_come_and_go(
    http: httpx.AsyncClient, name: str, sort: str
) -> None:
    names = [f"{name}-{letter}" for letter in "abcdefg"]
    for own in names:
        await register(http, own, id=f"{own}-1")
    query: dict[str, Any] = {"q": name, "sort": sort, "limit": 3}
    await wait_until(lambda: _total(http, query, 7))
    seen: list[str] = []
    url = str(httpx.URL(SERVICES, params=query))
    while url:
        answer = (await http.get(url)).raise_for_status()
        assert int(answer.headers["x-total-count"]) == (6 if seen else 7)
        if not seen:
            # One that was seen goes: nothing is skipped for it.
            await http.delete(f"{SERVICES}/{names[0]}-1")
            await wait_until(lambda: _total(http, query, 6))
        seen += [item["name"] for item in answer.json()]
        url = answer.links.get("next", {}).get("url", "")
    assert seen == names
    for own in names[1:]:
        await http.delete(f"{SERVICES}/{own}-1")


async def _total(http: httpx.AsyncClient, query: dict[str, Any], total: int) -> bool:
    return int((await http.get(SERVICES, params=query)).headers["x-total-count"]) == total


async def test_pages_by_number_lead_to_the_next_number(http: httpx.AsyncClient, shop: str) -> None:
    answer = await http.get(f"{SERVICES}/instances", params={"name": shop, "limit": 2, "page": 1})
    assert [item["id"] for item in answer.json()] == [f"{shop}-1", f"{shop}-2"]
    assert urlsplit(answer.links["next"]["url"]).query.endswith("limit=2&page=2")
    answer = await http.get(answer.links["next"]["url"])
    assert [item["id"] for item in answer.json()] == [f"{shop}-3"]
    assert "link" not in answer.headers
    assert answer.headers["x-total-count"] == "3"


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("", {"sort": "beauty"}, "query.sort"),
        ("/instances", {"sort": "passing"}, "query.sort"),
        ("", {"limit": 0}, "query.limit"),
        ("", {"limit": 1001}, "query.limit"),
        ("", {"cursor": "bm9wZQ"}, "query.cursor"),
        ("", {"cursor": "%%%"}, "query.cursor"),
        ("", {"health": "fine"}, "query.health.0"),
        ("/discover", {"name": "x", "order": "worst"}, "query.order"),
        ("/discover", {"name": "x", "limit": -1}, "query.limit"),
        ("/graph", {"format": "svg"}, "query.format"),
        ("/versions", {}, "query.name"),
    ],
)
async def test_what_is_wrong_with_a_question_is_named(
    http: httpx.AsyncClient, path: str, query: dict[str, Any], field: str
) -> None:
    answer = await http.get(SERVICES + path, params=query)
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]


async def test_a_cursor_of_another_question_is_refused(http: httpx.AsyncClient, shop: str) -> None:
    answer = await http.get(f"{SERVICES}/instances", params={"name": shop, "limit": 1})
    cursor = httpx.URL(answer.links["next"]["url"]).params["cursor"]
    for query in ({"name": shop, "sort": "-version"}, {"name": "other"}, {"name": shop, "page": 2}):
        refused = await http.get(f"{SERVICES}/instances", params={**query, "cursor": cursor})
        assert refused.status_code == 422, refused.text


async def test_near_instances_come_first_and_one_that_struggles_counts_as_farther(
    http: httpx.AsyncClient, shop: str
) -> None:
    async def order(**query: Any) -> str:
        return "".join(item["id"][-1] for item in await found(http, shop, **query))

    assert await order(near_zone="us-1", near_region="us") == "312"
    assert await order(near_zone="eu-2", near_region="eu") == "213"
    assert await order(near_zone="eu-2", near_region="eu", limit=1) == "2"
    await http.post(f"{SERVICES}/{shop}-2/heartbeat", json={"score": 0.3})
    await wait_until(lambda: _is(order(near_zone="eu-2", near_region="eu"), "123"))


async def test_the_one_with_least_to_do_for_its_weight_comes_first_of_those_equally_near(
    http: httpx.AsyncClient, shop: str
) -> None:
    async def order(**query: Any) -> str:
        return "".join(item["id"][-1] for item in await found(http, shop, **query))

    for number, in_flight in ((1, 9), (2, 2), (3, 5)):
        answer = await http.post(f"{SERVICES}/{shop}-{number}/heartbeat", json={"in_flight": in_flight})
        assert answer.status_code == 200
    await wait_until(lambda: _is(order(), "231"))
    assert await order(order="id") == "123"
    (first, *_) = await found(http, shop)
    assert (first["report"]["in_flight"], first["score"]) == (2, 1.0)


async def _is(value: Any, expected: str) -> bool:
    return await value == expected


async def test_a_lower_priority_number_comes_first(http: httpx.AsyncClient, name: str) -> None:
    for number, priority in ((1, 20), (2, 10)):
        await register(http, name, id=f"{name}-{number}", priority=priority)
    await wait_for(http, name, f"{name}-1", f"{name}-2", order="id")
    assert [item["priority"] for item in await found(http, name)] == [10, 20]


async def test_everything_that_a_registration_says_comes_back(http: httpx.AsyncClient, name: str) -> None:
    said: dict[str, Any] = {
        "type": "api",
        "version": "1.2.3",
        "region": "eu",
        "zone": "eu-1",
        "protocols": ["http", "grpc"],
        "capabilities": ["pdf"],
        "features": ["new-cart"],
        "depends_on": ["payments"],
        "track": "canary",
        "priority": 5,
        "health_path": "/health/ready",
        "resources": {"cpu": "500m", "memory-limit": "256Mi"},
        "sla": {"p99": "< 50 ms"},
    }
    instance = await register(http, name, **said)
    assert {key: instance[key] for key in said} == said
    assert instance["metadata"]["toska-capabilities"] == "pdf"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": "1 0"}, "body.version"),
        ({"zone": "a,b"}, "body.zone"),
        ({"capabilities": ["a b"]}, "body.capabilities.0"),
        ({"capabilities": ["x" * 60] * 10}, "body.capabilities"),
        ({"depends_on": ["Not A Name"]}, "body.depends_on.0"),
        ({"track": "purple"}, "body.track"),
        ({"priority": -1}, "body.priority"),
        ({"health_path": "health"}, "body.health_path"),
        ({"resources": {"cpu": "a,b"}}, "body.resources.cpu"),
        ({"metadata": {f"k{number}": "v" for number in range(49)}}, "body.metadata"),
        ({"id": "discover"}, "body.id"),
        ({"id": "graph"}, "body.id"),
    ],
)
async def test_what_is_wrong_with_a_profile_is_named(
    http: httpx.AsyncClient, name: str, change: dict[str, Any], field: str
) -> None:
    with contextlib.ExitStack():
        answer = await http.post(SERVICES, json={"service": name, "address": "127.0.0.1", "port": 9001, **change})
    assert answer.status_code == 422, answer.text
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]

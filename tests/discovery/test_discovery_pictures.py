"""Versions side by side, shares of traffic, and who depends on whom; on its own registry and on a real Consul."""

from typing import Any

import httpx
from toska_tests.discovery_rest import SERVICES, found, register, wait_for
from toska_tests.waiting import wait_until


async def versions(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    return (await http.get(f"{SERVICES}/versions", params={"name": name})).raise_for_status().json()


async def graph(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    return (await http.get(f"{SERVICES}/graph", params={"name": name})).raise_for_status().json()


async def test_a_newer_version_with_little_traffic_is_seen_as_a_canary(http: httpx.AsyncClient, name: str) -> None:
    await register(http, name, id=f"{name}-1", version="1.0", weight=9)
    await register(http, name, id=f"{name}-2", version="1.1", weight=1)
    await wait_for(http, name, f"{name}-1", f"{name}-2", order="id")
    answer = await versions(http, name)
    assert answer["deployment"] == "canary"
    shown = [(item["version"], item["role"], item["weight"], item["share"]) for item in answer["versions"]]
    assert shown == [("1.0", "stable", 9, 0.9), ("1.1", "canary", 1, 0.1)]


async def test_blue_and_green_say_so_themselves(http: httpx.AsyncClient, name: str) -> None:
    await register(http, name, id=f"{name}-1", version="1.0", track="blue")
    await register(http, name, id=f"{name}-2", version="2.0", tags=["green"])
    await wait_for(http, name, f"{name}-1", f"{name}-2", order="id")
    answer = await versions(http, name)
    assert answer["deployment"] == "blue-green"
    assert {item["version"]: item["role"] for item in answer["versions"]} == {"1.0": "blue", "2.0": "green"}


async def test_equal_versions_are_mixed_one_is_single_and_none_is_none(http: httpx.AsyncClient, name: str) -> None:
    assert await versions(http, name) == {"name": name, "deployment": "none", "versions": []}
    await register(http, name, id=f"{name}-1", version="1.0")
    await wait_for(http, name, f"{name}-1")
    assert (await versions(http, name))["deployment"] == "single"
    await register(http, name, id=f"{name}-2", version="2.0")
    await wait_for(http, name, f"{name}-1", f"{name}-2", order="id")
    assert (await versions(http, name))["deployment"] == "mixed"


async def test_a_reported_decline_lowers_the_share_of_traffic_by_a_step(http: httpx.AsyncClient, name: str) -> None:
    for number in (1, 2):
        await register(http, name, id=f"{name}-{number}", version=f"{number}.0")
    await wait_for(http, name, f"{name}-1", f"{name}-2", order="id")
    for _ in range(3):  # the second and third come too soon for another step
        answer = await http.post(f"{SERVICES}/{name}-2/heartbeat", json={"score": 0.2, "error_ratio": 0.8})
        assert answer.status_code == 200

    async def has_stepped() -> bool:
        (one, two) = (await versions(http, name))["versions"]
        return (one["share"], two["share"], two["score"]) == (0.5714, 0.4286, 0.2)

    await wait_until(has_stepped)
    (_, lowered) = await found(http, name, order="id")
    assert lowered["metadata"]["toska-score"] == "0.75"
    assert (lowered["health"], lowered["report"]["error_ratio"]) == ("passing", 0.8)


async def test_the_graph_shows_what_was_declared_and_what_was_observed(http: httpx.AsyncClient, name: str) -> None:
    shop, cart, bank = f"{name}-shop", f"{name}-cart", f"{name}-bank"
    await register(http, shop, id=f"{shop}-1", depends_on=[cart, bank])
    await register(http, cart, id=f"{cart}-1")
    await register(http, cart, id=f"{cart}-2")
    await wait_for(http, cart, f"{cart}-1", f"{cart}-2", order="id")
    for number in (1, 2):
        report = {"callers": {shop: 10 * number, "other": 3}}
        await http.post(f"{SERVICES}/{cart}-{number}/heartbeat", json=report)
    expected = [
        {"caller": shop, "callee": bank, "declared": True, "observed": False, "requests": 0},
        {"caller": shop, "callee": cart, "declared": True, "observed": True, "requests": 30},
    ]

    async def is_drawn() -> bool:
        return (await graph(http, shop))["edges"] == expected

    await wait_until(is_drawn, what="both edges")
    nodes = {node["name"]: node for node in (await graph(http, shop))["nodes"]}
    assert (nodes[cart]["instances"], nodes[cart]["health"], nodes[bank]["listed"]) == (2, "passing", False)
    whole = (await http.get(f"{SERVICES}/graph")).json()
    assert all(edge in whole["edges"] for edge in expected)
    mermaid = await http.get(f"{SERVICES}/graph", params={"name": shop, "format": "mermaid"})
    assert mermaid.headers["content-type"].startswith("text/vnd.mermaid")
    assert mermaid.text.startswith("flowchart LR\n")
    assert "-->|30|" in mermaid.text
    assert "-.->" in mermaid.text
    dot = (await http.get(f"{SERVICES}/graph", params={"name": shop, "format": "dot"})).text
    assert f'"{shop}" -> "{cart}" [label="30"];' in dot
    assert f'"{shop}" -> "{bank}" [style=dashed];' in dot


async def test_what_is_wrong_with_a_report_is_named(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name))["id"]
    for report, field in (
        ({"score": 1.5}, "body.score"),
        ({"in_flight": -1}, "body.in_flight"),
        ({"callers": {"Not A Name": 1}}, "body.callers.Not A Name.[key]"),
        ({"callers": {f"c{number}": 1 for number in range(66)}}, "body.callers"),
    ):
        answer = await http.post(f"{SERVICES}/{own_id}/heartbeat", json=report)
        assert answer.status_code == 422, answer.text
        assert [problem["field"] for problem in answer.json()["problems"]] == [field]


async def test_a_report_of_many_callers_fits_into_a_checks_output(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name))["id"]
    callers = {f"{'c' * 58}-{number:02}": 1_000_000 + number for number in range(64)}
    assert (await http.post(f"{SERVICES}/{own_id}/heartbeat", json={"callers": callers})).status_code == 200
    kept = (await http.get(f"{SERVICES}/{own_id}")).json()["report"]["callers"]
    assert 40 < len(kept) < 64
    assert sum(kept.values()) == sum(callers.values())

"""Policies by name, dry runs, history, differences and rollbacks, over the router's API."""

from typing import Any

import pytest
from toska_tests.routers import RunningRouter

LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
OLD = {"match": {"path_prefix": "/old"}, "to": "legacy"}
ALICE = {"x-toska-actor": "alice", "x-toska-reason": "Übergang zu Plan B"}


@pytest.fixture
async def table(router: RunningRouter) -> RunningRouter:
    """A router with a cluster, a policy and a route that names it: revisions 1 to 3."""
    await router.put("clusters/legacy", LEGACY)
    await router.put("policies/careful", {"timeout": "5s", "retry": {"attempts": 3}})
    await router.put("routes/old", {**OLD, "policies_from": ["careful"]})
    return router


async def post(router: RunningRouter, path: str, body: Any, **headers: str) -> Any:
    return await router.http.post(f"/api/v1/{path}", json=body, headers={**router.token("admin"), **headers})


async def test_a_policy_is_merged_into_the_routes_that_name_it(table: RunningRouter) -> None:
    entry = await table.read("routes/old")
    assert entry["route"]["policies_from"] == ["careful"]
    assert "policies" not in entry["route"]
    assert entry["effective_policies"] == {"timeout": "5s", "retry": {"attempts": 3}}
    [route] = (await table.snapshot()).table.routes
    assert route.policies.retry.attempts == 3

    changed = await table.put("policies/careful", {"timeout": "7s"})
    assert changed.json()["used_by"] == ["old"]
    [route] = (await table.snapshot()).table.routes
    assert str(route.policies.timeout) == "0:00:07"
    assert route.policies.retry.attempts != 3


async def test_what_a_policy_switches_off_is_kept_as_it_was_written(table: RunningRouter) -> None:
    body = {**OLD, "policies_from": ["careful"], "policies": {"timeout": None}}
    await table.put("routes/old", body)
    entry = await table.read("routes/old")
    assert entry["route"]["policies"] == {"timeout": None}
    assert "timeout" not in entry["effective_policies"]
    again = await table.put("routes/old", entry["route"], **{"if-match": f'"{entry["version"]}"'})
    assert again.json()["version"] == entry["version"]


async def test_a_policy_that_routes_name_stays_and_one_that_spoils_them_is_refused(table: RunningRouter) -> None:
    refused = await table.delete("policies/careful")
    assert (refused.status_code, refused.json()["routes"]) == (409, ["old"])
    assert refused.json()["type"] == "/problems/policy-in-use"
    spoiling = await table.put("policies/careful", {"mirror": {"cluster": "nowhere"}})
    assert spoiling.status_code == 422
    assert spoiling.json()["problems"][0]["field"] == "mirror.cluster"
    claim = await table.put("policies/careful", {"rate_limit": {"requests": 1, "key": "claim:sub"}})
    assert claim.status_code == 422
    assert 'the route "old"' in claim.json()["detail"]
    unknown = await table.put("routes/new", {"match": {"path": "/n"}, "to": "legacy", "policies_from": "carefull"})
    assert unknown.json()["problems"] == [
        {"field": "policies_from[0]", "reason": 'there is no policy "carefull" (did you mean "careful"?)'}
    ]
    await table.put("policies/copying", {"mirror": {"cluster": "legacy"}})
    await table.delete("routes/old")
    assert (await table.delete("clusters/legacy")).json()["policies"] == ["copying"]
    assert (await table.delete("policies/careful")).status_code == 204


async def test_a_dry_run_tells_what_gateways_would_see_and_changes_nothing(table: RunningRouter) -> None:
    before = await table.snapshot()
    seen = (await table.put("policies/careful?dry_run=true", {"timeout": "7s"})).json()
    assert seen["written"] == [
        {
            "kind": "policy",
            "name": "careful",
            "change": "changed",
            "differences": [
                {"path": "timeout", "change": "changed", "before": "5s", "after": "7s"},
                {"path": "retry", "change": "removed", "before": {"attempts": 3}},
            ],
        }
    ]
    [route] = seen["compiled"]["routes"]
    assert (route["name"], route["change"], route["rank"]) == ("old", "changed", 0)
    assert [difference["path"] for difference in route["differences"]] == ["policies.timeout", "policies.retry"]
    assert seen["compiled"]["routes_version_before"] == before.routes_version

    added = (await table.put("routes/new?dry_run=true", {"match": {"path": "/old"}, "to": "legacy"})).json()
    assert [(item["name"], item["change"], item["rank"]) for item in added["compiled"]["routes"]] == [
        ("new", "added", 0)
    ]
    gone = (await table.delete("routes/old?dry_run=true")).json()
    assert [(item["name"], item["change"]) for item in gone["compiled"]["routes"]] == [("old", "removed")]
    assert (await table.put("routes/new?dry_run=true", {"match": {"path": "/n"}, "to": "lost"})).status_code == 422
    assert (await table.delete("routes/old?dry_run=true", **{"if-match": '"other"'})).status_code == 412

    assert await table.snapshot() == before
    assert len(await table.read("revisions")) == 3
    await table.put("policies/careful", {"timeout": "7s"})
    assert (await table.snapshot()).routes_version == seen["compiled"]["routes_version"]


async def test_the_history_tells_who_changed_what_and_when(table: RunningRouter) -> None:
    said = {name.encode(): value.encode() for name, value in {**ALICE, **table.token("admin")}.items()}
    made = await table.http.put("/api/v1/routes/old", json=OLD, headers=said)
    newest, *earlier = await table.read("revisions")
    assert {key: newest[key] for key in ("revision", "source", "credential", "actor", "reason")} == {
        "revision": 4,
        "source": "api",
        "credential": "admin",
        "actor": "alice",
        "reason": "Übergang zu Plan B",
    }
    assert newest["at"].endswith("Z")
    assert newest["changes"] == [{"kind": "route", "name": "old", "version": made.json()["version"]}]
    assert [revision["revision"] for revision in earlier] == [3, 2, 1]
    assert [revision["revision"] for revision in await table.read("revisions?limit=1&before=3")] == [2]

    await table.delete("routes/old")
    versions = await table.read("routes/old/history")
    assert [(version["revision"], version["version"] != "") for version in versions] == [
        (5, False),
        (4, True),
        (3, True),
    ]
    assert versions[1]["body"] == {"name": "old", "match": {"path_prefix": "/old"}, "to": [{"cluster": "legacy"}]}


@pytest.mark.parametrize("value", ["x" * 129, "a\x07b", "\xff"])
async def test_a_name_that_cannot_be_shown_is_refused(table: RunningRouter, value: str) -> None:
    headers = {
        b"x-toska-actor": value.encode("latin-1"),
        b"authorization": table.token("admin")["authorization"].encode(),
    }
    refused = await table.http.put("/api/v1/clusters/other", json=LEGACY, headers=headers)
    assert refused.status_code in (400, 422)
    assert len(await table.read("revisions")) == 3


@pytest.mark.parametrize(
    "path", ["revisions?before={}", "routes/shop/history?before={}", "diff?from={}", "diff?from=0&to={}"]
)
async def test_a_revision_that_no_database_can_have_is_not_looked_for(table: RunningRouter, path: str) -> None:
    for revision in (2**63 - 1, 2**63, 10**30):
        found = await table.http.get(f"/api/v1/{path.format(revision)}")
        assert found.status_code in (200, 404, 422), revision


async def test_versions_are_compared(table: RunningRouter) -> None:
    await table.put("routes/old", {**OLD, "strip_prefix": True})
    change = await table.read("routes/old/diff?from=3&to=4")
    assert change["differences"] == [
        {"path": "policies_from", "change": "removed", "before": ["careful"]},
        {"path": "strip_prefix", "change": "added", "after": True},
    ]
    assert (await table.read("routes/old/diff?from=3")) == change
    assert (await table.read("routes/old/diff?from=0&to=4"))["change"] == "added"
    whole = await table.read("diff?from=1")
    assert [(item["kind"], item["name"], item["change"]) for item in whole["written"]] == [
        ("route", "old", "added"),
        ("policy", "careful", "added"),
    ]
    assert (await table.http.get("/api/v1/diff?from=1&to=99")).status_code == 404
    assert (await table.http.get("/api/v1/routes/none/diff?from=0")).status_code == 404


async def test_one_route_goes_back_to_what_it_was(table: RunningRouter) -> None:
    tag = (await table.http.get("/api/v1/routes/old")).headers["etag"]
    await table.put("routes/old", {**OLD, "strip_prefix": True})
    assert (await post(table, "routes/old/rollback", {"revision": 3}, **{"if-match": tag})).status_code == 412
    seen = (await post(table, "routes/old/rollback?dry_run=true", {"revision": 3})).json()
    assert seen["compiled"]["routes"][0]["name"] == "old"
    done = await post(table, "routes/old/rollback", {"revision": 3}, **{"x-toska-reason": "worse"})
    assert done.headers["x-toska-revision"] == "5"
    assert (await table.http.get("/api/v1/routes/old")).headers["etag"] == tag
    [newest] = await table.read("revisions?limit=1")
    assert (newest["source"], newest["reason"]) == ("rollback", "worse")
    assert (await post(table, "routes/old/rollback", {"revision": 2})).status_code == 200
    assert (await table.http.get("/api/v1/routes/old")).status_code == 404
    assert (await post(table, "routes/old/rollback", {"revision": 99})).status_code == 404


async def test_everything_goes_back_in_one_step(table: RunningRouter) -> None:
    before = await table.snapshot()
    await table.delete("routes/old")
    await table.delete("policies/careful")
    await table.put("clusters/legacy", {"service": "legacy"})
    await table.put("clusters/other", LEGACY)
    done = await post(table, "rollback", {"revision": 3})
    assert {(item["kind"], item["name"], item["change"]) for item in done.json()["written"]} == {
        ("route", "old", "added"),
        ("policy", "careful", "added"),
        ("cluster", "legacy", "changed"),
        ("cluster", "other", "removed"),
    }
    assert (await table.snapshot()).version == before.version
    [newest] = await table.read("revisions?limit=1")
    assert (newest["revision"], len(newest["changes"])) == (8, 4)
    await post(table, "rollback", {"revision": 0})
    assert (await table.snapshot()).table.routes == ()
    assert (await post(table, "rollback", {"revision": 3, "x": 1})).status_code == 422


async def test_what_changes_nothing_makes_no_revision(table: RunningRouter) -> None:
    again = await table.put("clusters/legacy", LEGACY)
    assert (again.status_code, again.headers["x-toska-revision"]) == (200, "3")
    assert (await post(table, "rollback", {"revision": 3})).json() == {}
    assert len(await table.read("revisions")) == 3


async def test_the_words_of_routing_are_served_as_json_schema(table: RunningRouter) -> None:
    names = await table.read("schemas")
    assert set(names) == {"document", "route", "cluster", "policy", "split", "rollout", "experiment"}
    for name in names:
        schema = await table.read(f"schemas/{name}")
        assert schema["$schema"].startswith("https://json-schema.org/")
    assert "policies_from" in (await table.read("schemas/route"))["properties"]
    assert (await table.http.get("/api/v1/schemas/none")).status_code == 404
    document = (await table.http.get("/openapi.json")).json()
    assert {"Route", "Cluster", "Policies", "WeightedCluster"} <= document["components"]["schemas"].keys()
    assert "/api/v1/policies/{name}/rollback" in document["paths"]

"""Several resources changed at once, a document applied whole, and merge patches: over the router's API."""

import json
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.routing import Cluster
from toska_common.routing.written import written
from toska_router.documents import Change
from toska_router.proposals import Patch
from toska_router.sources import Sources
from toska_tests.routers import RunningRouter, StartRouter

BLUE = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
GREEN = {"endpoints": [{"address": "127.0.0.1", "port": 9002}]}
SHOP = {"match": {"path_prefix": "/shop"}, "to": "blue"}
PUT_ALL = [
    {"action": "put", "kind": "route", "name": "shop", "body": {**SHOP, "policies_from": ["careful"]}},
    {"action": "put", "kind": "policy", "name": "careful", "body": {"timeout": "5s", "retry": {"attempts": 3}}},
    {"action": "put", "kind": "cluster", "name": "blue", "body": BLUE},
]
DOCUMENT = """
clusters:
  blue: {endpoints: [{address: 127.0.0.1, port: 9001}]}
  green: {endpoints: [{address: 127.0.0.1, port: 9002}]}
routes:
  - {name: shop, match: {path_prefix: /shop}, to: green}
"""


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


async def send(router: RunningRouter, path: str, body: Any, kind: str = "application/json", **headers: str) -> Any:
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {**router.token("admin"), "content-type": kind, **headers}
    return await router.http.post(f"/api/v1/{path}", headers=headers, content=content)


async def change(router: RunningRouter, *changes: Any, query: str = "", **headers: str) -> Any:
    return await send(router, f"changes{query}", {"changes": changes}, **headers)


async def patch(router: RunningRouter, path: str, body: str, **headers: str) -> Any:
    headers = {"content-type": "application/merge-patch+json", **headers}
    return await router.http.patch(f"/api/v1/{path}", content=body, headers={**router.token("admin"), **headers})


@pytest.fixture
async def shop(router: RunningRouter) -> RunningRouter:
    """A router with a route, its cluster and its policy: one revision."""
    made = await change(router, *PUT_ALL)
    assert made.status_code == 200, made.text
    return router


async def test_what_is_changed_together_is_one_revision_in_whatever_order(shop: RunningRouter) -> None:
    [route] = await shop.read("routes")
    assert route["effective_policies"] == {"timeout": "5s", "retry": {"attempts": 3}}
    before = (await shop.http.get("/metrics")).text

    done = await change(
        shop,
        {"action": "delete", "kind": "cluster", "name": "blue"},
        {"action": "patch", "kind": "policy", "name": "careful", "body": {"retry": None}},
        {"action": "patch", "kind": "route", "name": "shop", "body": {"to": "green"}},
        {"action": "put", "kind": "cluster", "name": "green", "body": GREEN},
        **{"x-toska-reason": "green it is"},
    )
    assert done.headers["x-toska-revision"] == "2"
    assert {(one["kind"], one["name"], one["change"]) for one in done.json()["written"]} == {
        ("cluster", "blue", "removed"),
        ("policy", "careful", "changed"),
        ("route", "shop", "changed"),
        ("cluster", "green", "added"),
    }
    newest, _ = await shop.read("revisions")
    assert (newest["reason"], len(newest["changes"])) == ("green it is", 4)
    after = (await shop.http.get("/metrics")).text
    assert published(after) == published(before) + 1
    assert (await shop.snapshot()).table.routes[0].to[0].cluster == "green"


def published(metrics: str) -> float:
    (line,) = (line for line in metrics.splitlines() if line.startswith("toska_router_snapshots_total"))
    return float(line.split()[-1])


async def test_a_dry_run_of_several_changes_tells_what_gateways_would_see(shop: RunningRouter) -> None:
    before = await shop.snapshot()
    change_all = [
        {"action": "delete", "kind": "route", "name": "shop"},
        {"action": "delete", "kind": "policy", "name": "careful"},
        {"action": "put", "kind": "route", "name": "other", "body": {**SHOP, "strip_prefix": True}},
    ]
    seen = (await change(shop, *change_all, query="?dry_run=true")).json()
    assert [(one["name"], one["change"]) for one in seen["compiled"]["routes"]] == [
        ("other", "added"),
        ("shop", "removed"),
    ]
    assert await shop.snapshot() == before
    await change(shop, *change_all)
    assert (await shop.snapshot()).routes_version == seen["compiled"]["routes_version"]


async def test_one_change_that_does_not_fit_keeps_all_from_being_made(shop: RunningRouter) -> None:
    before = await shop.snapshot()
    version = (await shop.read("routes/shop"))["version"]
    good = {"action": "put", "kind": "cluster", "name": "green", "body": GREEN}

    stale = await change(
        shop,
        good,
        {"action": "delete", "kind": "route", "name": "shop", "if_match": "stale"},
        {"action": "put", "kind": "policy", "name": "careful", "body": {}, "if_none_match": "*"},
        {"action": "patch", "kind": "cluster", "name": "gone", "body": {"balancer": "random"}},
    )
    assert stale.status_code == 412
    problems = stale.json()["problems"]
    assert [problem["field"] for problem in problems] == ["changes[1]", "changes[2]", "changes[3]"]
    assert problems[0]["version"] == version

    missing = await change(shop, good, {"action": "delete", "kind": "route", "name": "none"})
    assert (missing.status_code, missing.json()["problems"][0]["field"]) == (404, "changes[1]")
    used = await change(shop, good, {"action": "delete", "kind": "cluster", "name": "blue"})
    assert (used.status_code, used.json()["routes"]) == (409, ["shop"])
    lost = {"action": "patch", "kind": "route", "name": "shop", "body": {"to": "lost"}}
    refused = await change(shop, good, lost)
    assert refused.status_code == 422
    assert refused.json()["problems"][0]["field"] == "routes.shop.to[0].cluster"
    spoiled = await change(shop, good, {**lost, "body": {"to": None, "strip_prefix": "often"}})
    assert "changes[1].body.strip_prefix" in [problem["field"] for problem in spoiled.json()["problems"]]

    assert await shop.snapshot() == before
    assert len(await shop.read("revisions")) == 1
    current = {"action": "delete", "kind": "route", "name": "shop", "if_match": f'"{version}"'}
    assert (await change(shop, current)).status_code == 200


async def test_everything_that_is_wrong_with_a_list_is_named_with_its_line(shop: RunningRouter) -> None:
    text = (
        "changes:\n"
        "- {action: put, kind: route, name: a, body: {match: {path: x}, to: blue}}\n"
        "- {action: put, kind: cluster, name: b, body: {balancr: random}}\n"
        "- {action: delete, kind: cluster, name: b}\n"
        "- {action: put, kind: route, name: c, body: {name: d, match: {path: /c}, to: blue}}\n"
        "- {action: patch, kind: route, name: e, body: [1]}\n"
    )
    refused = await send(shop, "changes", text, "application/yaml")
    assert refused.status_code == 422
    found = {(problem["field"], problem["line"]) for problem in refused.json()["problems"]}
    assert found >= {
        ("changes[0].body.match.path", 2),
        ("changes[1].body.balancr", 3),
        ("changes[2].name", 4),
        ("changes[3].body.name", 5),
        ("changes[4].body", 6),
    }
    for wrong in ([], [{"action": "put", "kind": "route", "name": "a"}], [{"action": "move", "kind": "x", "name": ""}]):
        assert (await change(shop, *wrong)).status_code == 422
    assert (await send(shop, "changes", "a", "text/plain")).status_code == 415


async def test_a_document_is_applied_and_prunes_what_it_does_not_have(shop: RunningRouter) -> None:
    seen = (await send(shop, "document?dry_run=true&prune=true", DOCUMENT, "application/yaml")).json()
    assert {(one["kind"], one["name"], one["change"]) for one in seen["written"]} == {
        ("cluster", "green", "added"),
        ("route", "shop", "changed"),
        ("policy", "careful", "removed"),
    }
    kept = await send(shop, "document", DOCUMENT, "application/yaml")
    assert {one["name"] for one in kept.json()["written"]} == {"green", "shop"}
    assert [entry["name"] for entry in await shop.read("policies")] == ["careful"]
    pruned = await send(shop, "document?prune=true", DOCUMENT, "application/yaml")
    assert [(one["name"], one["change"]) for one in pruned.json()["written"]] == [("careful", "removed")]
    again = await send(shop, "document?prune=true", await shop.read("document"))
    assert (again.status_code, again.json(), again.headers["x-toska-revision"]) == (200, {}, "3")


async def test_a_document_that_does_not_fit_is_refused_with_lines(shop: RunningRouter) -> None:
    text = "routes:\n- {name: a, match: {path: /a}, to: green}\n- {name: b, match: {path_prefix: /shop}, to: blue}\n"
    refused = await send(shop, "document", text, "application/yaml")
    assert refused.status_code == 422
    assert [(problem["field"], problem["line"]) for problem in refused.json()["problems"]] == [
        ("routes[0].to", 2),
        ("routes[1].match", 3),
    ]
    # What is pruned is no longer there to lead to, nor in anybody's way.
    pruning = await send(shop, "document?prune=true", text, "application/yaml")
    assert [problem["field"] for problem in pruning.json()["problems"]] == ["routes[0].to", "routes[1].to"]
    ours = await send(shop, "document", "server: {trusted_proxies: [10.0.0.0/8]}\n", "application/yaml")
    assert ours.json()["problems"][0]["field"] == "server"
    assert (await send(shop, "document", "", "application/yaml")).status_code == 422
    assert len(await shop.read("revisions")) == 1


async def test_a_part_of_a_resource_is_patched(shop: RunningRouter) -> None:
    await shop.put("clusters/green", GREEN)
    done = await patch(shop, "routes/shop", '{"to": "green", "policies_from": null, "policies": {"timeout": "2s"}}')
    assert (done.status_code, done.headers["x-toska-revision"]) == (200, "3")
    assert done.json()["route"] == {
        "name": "shop",
        "match": {"path_prefix": "/shop"},
        "to": [{"cluster": "green"}],
        "policies": {"timeout": "2s"},
    }
    tag = done.headers["etag"]
    seen = (await patch(shop, "routes/shop?dry_run=true", '{"policies": {"timeout": "3s"}}')).json()
    assert [one["path"] for one in seen["compiled"]["routes"][0]["differences"]] == ["policies.timeout"]
    fresh = await patch(shop, "routes/shop", '{"policies": {"retry": {"attempts": 4}}}', **{"if-match": tag})
    assert fresh.json()["route"]["policies"] == {"timeout": "2s", "retry": {"attempts": 4}}
    assert (await patch(shop, "routes/shop", '{"to": "blue"}', **{"if-match": tag})).status_code == 412
    moved = await patch(shop, "routes/shop", '{"to": null, "redirect": {"to": "/new"}, "policies": null}')
    assert moved.json()["route"]["redirect"] == {"to": "/new"}
    assert (await patch(shop, "policies/careful", '{"retry": null}')).json()["policy"] == {"timeout": "5s"}
    assert (await patch(shop, "clusters/green", '{"balancer": "random"}')).json()["cluster"]["balancer"] == "random"
    assert [one["revision"] for one in await shop.read("routes/shop/history")] == [5, 4, 3, 1]


async def test_a_patch_that_cannot_be_is_refused(shop: RunningRouter) -> None:
    before = await shop.snapshot()
    plain = await patch(shop, "routes/shop", '{"to": "blue"}', **{"content-type": "application/json"})
    assert (plain.status_code, plain.headers["accept-patch"]) == (415, "application/merge-patch+json")
    for body, field in (
        ('{"to": null}', ""),
        ('{"macth": {}}', "macth"),
        ('{"to": "lost"}', "to[0].cluster"),
        ('{"name": "other"}', "name"),
        ('{"to": "blue", "to": "blue"}', ""),
        ("[]", ""),
        ("{", ""),
    ):
        refused = await patch(shop, "routes/shop", body)
        assert refused.status_code == 422, body
        assert refused.json()["problems"][0]["field"] == field
    assert (await patch(shop, "routes/none", "{}")).status_code == 404
    join = await patch(shop, "routes/shop", "{}", **shop.token("join"))
    assert join.status_code == 403
    assert (await patch(shop, "routes/shop", "{}")).headers["x-toska-revision"] == "1"
    assert await shop.snapshot() == before


async def test_the_file_s_own_is_not_changed_with_the_rest(start_router: StartRouter, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("clusters: {app: {endpoints: [{address: 127.0.0.1, port: 9001}]}}\n")
    async with start_router(routes=file) as other:
        taken = await change(
            other,
            {"action": "patch", "kind": "cluster", "name": "app", "body": {"balancer": "random"}},
            {"action": "put", "kind": "cluster", "name": "green", "body": GREEN},
        )
        assert (taken.status_code, taken.json()["problems"][0]["field"]) == (409, "changes[0]")
        text = "clusters:\n  app: {service: app}\n"
        refused = await send(other, "document?prune=true", text, "application/yaml")
        assert refused.json()["problems"][0]["line"] == 2
        assert await other.read("document") == {"clusters": {}, "policies": {}, "routes": []}
        assert [entry["name"] for entry in await other.read("clusters")] == ["app"]


async def test_the_words_of_several_changes_are_in_the_description_of_the_api(router: RunningRouter) -> None:
    document = (await router.http.get("/openapi.json")).json()
    body = document["paths"]["/api/v1/changes"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["changes"]["items"]["properties"]["action"]["enum"] == ["put", "patch", "delete"]
    reference = document["paths"]["/api/v1/document"]["post"]["requestBody"]["content"]["application/yaml"]["schema"]
    assert reference["$ref"].rpartition("/")[2] in document["components"]["schemas"]
    assert "application/merge-patch+json" in str(document["paths"]["/api/v1/routes/{name}"]["patch"]["requestBody"])


def test_a_patch_that_was_worked_out_beforehand_is_of_what_holds_in_the_moment() -> None:
    def cluster(**fields: Any) -> Change:
        return Change("cluster", "blue", Cluster.model_validate({**BLUE, **fields}))

    patch_it = Patch("cluster", "blue", {"balancer": "random"})
    before = Sources().with_changes([cluster()])
    [foreseen] = patch_it(before)
    assert patch_it(before)[0].resource is foreseen.resource
    [made] = patch_it(before.with_changes([cluster(keep_alive="9s")]))
    assert made.resource is not None
    assert written(made.resource) == {**BLUE, "balancer": "random", "keep_alive": "9s"}

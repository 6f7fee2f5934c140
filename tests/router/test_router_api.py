"""The router's API: routes and clusters are made, replaced and taken away, and what does not fit is refused whole."""

import pytest
from toska_tests.routers import RunningRouter, StartRouter

LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
OLD = {"match": {"path_prefix": "/old"}, "to": "legacy"}


async def test_a_route_is_made_replaced_and_taken_away(router: RunningRouter) -> None:
    assert (await router.put("clusters/legacy", LEGACY)).status_code == 201
    made = await router.put("routes/old", OLD)
    assert made.status_code == 201
    assert made.json()["route"] == {"name": "old", "match": {"path_prefix": "/old"}, "to": [{"cluster": "legacy"}]}
    assert made.json()["source"] == "api"

    replaced = await router.put("routes/old", {**OLD, "strip_prefix": True})
    assert replaced.status_code == 200
    assert replaced.headers["etag"] != made.headers["etag"]
    [route] = (await router.snapshot()).table.routes
    assert route.strip_prefix

    assert (await router.delete("routes/old")).status_code == 204
    assert (await router.snapshot()).table.routes == ()
    assert (await router.delete("routes/old")).status_code == 404
    assert (await router.http.get("/api/v1/routes/old")).status_code == 404


async def test_what_is_read_can_be_sent_back(router: RunningRouter) -> None:
    await router.put("clusters/legacy", {**LEGACY, "balancer": "round_robin", "keep_alive": "1m30s"})
    await router.put(
        "routes/old", {**OLD, "policies": {"timeout": "1500ms", "headers": {"response": {"remove": ["x"]}}}}
    )
    for path in ("clusters/legacy", "routes/old"):
        entry = await router.read(path)
        content = entry["cluster" if "cluster" in entry else "route"]
        again = await router.put(path, content)
        assert again.status_code == 200
        assert again.json()["version"] == entry["version"]


async def test_routes_are_listed_in_their_order_of_precedence(router: RunningRouter) -> None:
    await router.put("clusters/legacy", LEGACY)
    await router.put("routes/a", {"match": {"path_prefix": "/"}, "to": "legacy"})
    await router.put("routes/b", {"match": {"path_prefix": "/b"}, "to": "legacy"})
    await router.put("routes/c", {"match": {"path": "/b", "host": "c.example"}, "to": "legacy"})
    assert [entry["route"]["name"] for entry in await router.read("routes")] == ["c", "b", "a"]


async def test_a_wrong_route_is_refused_with_every_problem(router: RunningRouter) -> None:
    answer = await router.put(
        "routes/bad", {"match": {"path": "x", "metods": []}, "to": [{"cluster": "a", "weight": -1}]}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {problem["field"] for problem in answer.json()["problems"]} == {"match.path", "match.metods", "to[0].weight"}
    assert await router.read("routes") == []


async def test_a_route_in_yaml_is_refused_with_lines(router: RunningRouter) -> None:
    headers = {**router.token("admin"), "content-type": "application/yaml"}
    body = "match:\n  path: /a\n  host: Shop.Example\nto: legacy\n"
    answer = await router.http.put("/api/v1/routes/a", content=body, headers=headers)
    assert [(problem["field"], problem["line"]) for problem in answer.json()["problems"]] == [("match.host", 3)]
    await router.put("clusters/legacy", LEGACY)
    made = await router.http.put("/api/v1/routes/a", content=body.lower(), headers=headers)
    assert made.status_code == 201


async def test_a_route_that_leads_nowhere_or_stands_in_another_s_way_changes_nothing(router: RunningRouter) -> None:
    await router.put("clusters/legacy", LEGACY)
    await router.put("routes/old", OLD)
    before = await router.snapshot()
    nowhere = await router.put("routes/new", {"match": {"path": "/new"}, "to": "legaci"})
    assert nowhere.status_code == 422
    assert 'did you mean "legacy"' in nowhere.json()["problems"][0]["reason"]
    conflict = await router.put("routes/new", OLD)
    assert conflict.status_code == 422
    assert '"new"' in conflict.json()["detail"]
    assert '"old"' in conflict.json()["detail"]
    assert await router.snapshot() == before


async def test_a_cluster_in_use_stays_and_its_routes_are_named(router: RunningRouter) -> None:
    await router.put("clusters/legacy", LEGACY)
    await router.put("routes/old", OLD)
    refused = await router.delete("clusters/legacy")
    assert refused.status_code == 409
    assert refused.json()["routes"] == ["old"]
    await router.delete("routes/old")
    assert (await router.delete("clusters/legacy")).status_code == 204
    assert await router.read("clusters") == []


async def test_a_change_can_be_bound_to_the_version_that_was_read(router: RunningRouter) -> None:
    await router.put("clusters/legacy", LEGACY)
    tag = (await router.http.get("/api/v1/clusters/legacy")).headers["etag"]
    first = await router.put("clusters/legacy", {"service": "legacy"}, **{"if-match": f'"other", {tag}'})
    second = await router.put("clusters/legacy", {"service": "other"}, **{"if-match": tag})
    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["version"] == first.json()["version"]
    assert (await router.delete("clusters/legacy", **{"if-match": f"W/{first.headers['etag']}"})).status_code == 412
    assert (await router.delete("clusters/legacy", **{"if-match": first.headers["etag"]})).status_code == 204
    assert (await router.put("clusters/legacy", LEGACY, **{"if-match": "*"})).status_code == 412
    assert (await router.put("clusters/legacy", LEGACY, **{"if-none-match": "*"})).status_code == 201
    assert (await router.put("clusters/legacy", LEGACY, **{"if-none-match": "*"})).status_code == 412


async def test_a_route_goes_by_the_name_in_the_url(router: RunningRouter) -> None:
    await router.put("clusters/legacy", LEGACY)
    answer = await router.put("routes/old", {**OLD, "name": "older"})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"{}", 415),
        ("application/json", b"{", 422),
        ("application/json", b'{"x": "' + b"y" * 1024 * 1024 + b'"}', 413),
        ("application/yaml", b"\xff", 422),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    router: RunningRouter, content_type: str, body: bytes, status: int
) -> None:
    headers = {**router.token("admin"), "content-type": content_type}
    answer = await router.http.put("/api/v1/clusters/a", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("dry-run=true", "dry-run", 'did you mean "dry_run"?'),
        ("dry_run=true&dry_run=false", "dry_run", "stands twice"),
        ("force=1", "force", "known here: dry_run"),
    ],
)
async def test_a_dry_run_that_is_misspelt_changes_nothing(
    router: RunningRouter, query: str, field: str, says: str
) -> None:
    refused = await router.put(f"clusters/legacy?{query}", LEGACY)
    assert refused.status_code == 422
    [problem] = refused.json()["problems"]
    assert problem["field"] == field
    assert says in problem["reason"]
    assert (await router.delete(f"clusters/legacy?{query}")).status_code == 422
    assert await router.read("clusters") == []


async def test_changes_need_the_admin_token(router: RunningRouter) -> None:
    for path in ("clusters/a", "routes/a"):
        for headers, status in (({}, 401), ({"authorization": "Bearer x"}, 401), (router.token("join"), 403)):
            put = await router.http.put(f"/api/v1/{path}", json=LEGACY, headers=headers)
            delete = await router.http.delete(f"/api/v1/{path}", headers=headers)
            assert (put.status_code, delete.status_code) == (status, status)
            assert put.headers["content-type"] == "application/problem+json"
    assert await router.read("clusters") == []


async def test_reads_and_polls_are_open_on_loopback_and_a_strange_host_is_not_answered(router: RunningRouter) -> None:
    for path in ("routes", "clusters", "snapshot", "gateways", "status"):
        assert (await router.http.get(f"/api/v1/{path}")).status_code == 200
    assert (await router.poll()).table is not None
    rebound = await router.http.post("/api/v1/snapshot", json={"gateway": "x"}, headers={"host": "evil.example"})
    assert rebound.status_code == 421


async def test_what_the_api_made_outlives_the_router(start_router: StartRouter) -> None:
    async with start_router() as router:
        await router.put("clusters/legacy", LEGACY)
        await router.put("routes/old", OLD)
        before = await router.snapshot()
    async with start_router() as router:
        assert await router.snapshot() == before
        assert (await router.read("routes/old"))["source"] == "api"


async def test_the_api_describes_itself(router: RunningRouter) -> None:
    document = (await router.http.get("/openapi.json")).json()
    assert {"/api/v1/routes/{name}", "/api/v1/clusters/{name}", "/api/v1/snapshot"} <= document["paths"].keys()
    schemas = document["components"]["schemas"]
    body = document["paths"]["/api/v1/routes/{name}"]["put"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].removeprefix("#/components/schemas/") in schemas
    assert (await router.http.get("/docs")).status_code == 200
    metrics = (await router.http.get("/metrics")).text
    assert "toska_router_routes 0.0" in metrics

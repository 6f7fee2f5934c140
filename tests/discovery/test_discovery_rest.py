"""Discovery's REST API: one suite over its own registry and over a real Consul."""

from typing import Any

import httpx
import pytest
from toska_tests.discovery_rest import SERVICES, body, found, register, wait_for
from toska_tests.discovery_rig import RunningDiscovery
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until


async def test_a_registered_instance_is_answered_found_and_listed(http: httpx.AsyncClient, name: str) -> None:
    port = free_port()
    sent = body(name, port, tags=["v1"], metadata={"zone": "a"}, weight=3, ttl_seconds=20)
    answer = await http.post(SERVICES, json=sent)
    instance = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{SERVICES}/{instance['id']}"
    assert {key: instance[key] for key in sent} == sent
    assert (instance["id"], instance["health"]) == (f"{name}:127.0.0.1:{port}", "passing")
    assert instance["registered_at"] is not None
    (listed,) = await wait_for(http, name, instance["id"])
    assert listed == instance
    assert (await http.get(f"{SERVICES}/{instance['id']}")).json() == instance
    summaries = {item["name"]: item for item in (await http.get(SERVICES)).json()}
    expected = {"name": name, "tags": ["v1"], "passing": 1, "warning": 0, "critical": 0}
    assert {key: summaries[name][key] for key in expected} == expected
    assert "consul" not in summaries


async def test_a_lease_has_the_ttl_of_the_settings_if_it_asks_for_none(http: httpx.AsyncClient, name: str) -> None:
    assert (await register(http, name))["ttl_seconds"] == 15


async def test_an_unrenewed_instance_turns_critical_and_leaves_the_found_ones(
    http: httpx.AsyncClient, name: str
) -> None:
    instance = await register(http, name, ttl_seconds=0.3)
    await wait_for(http, name)
    (lapsed,) = await wait_for(http, name, instance["id"], all="true")
    assert lapsed["health"] == "critical"
    summaries = {item["name"]: item for item in (await http.get(SERVICES)).json()}
    assert (summaries[name]["passing"], summaries[name]["critical"]) == (0, 1)


async def test_a_heartbeat_renews_the_lease_and_tells_its_ttl(http: httpx.AsyncClient, name: str) -> None:
    instance = await register(http, name, ttl_seconds=0.5)
    await wait_for(http, name)
    answer = await http.post(f"{SERVICES}/{instance['id']}/heartbeat")
    assert (answer.status_code, answer.json()) == (200, {"id": instance["id"], "ttl_seconds": 0.5})
    await wait_for(http, name, instance["id"])


async def test_registering_again_takes_a_lapsed_instance_for_passing(http: httpx.AsyncClient, name: str) -> None:
    sent = body(name, ttl_seconds=0.4)
    instance = (await http.post(SERVICES, json=sent)).json()
    await wait_for(http, name)
    assert (await http.post(SERVICES, json=sent)).json()["health"] == "passing"
    await wait_for(http, name, instance["id"])


async def test_a_deregistered_instance_is_gone(http: httpx.AsyncClient, name: str) -> None:
    instance = await register(http, name)
    await wait_for(http, name, instance["id"])
    assert (await http.delete(f"{SERVICES}/{instance['id']}")).status_code == 204
    await wait_for(http, name)
    assert name not in {item["name"] for item in (await http.get(SERVICES)).json()}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/heartbeat")])
async def test_an_unknown_instance_is_a_problem_of_its_own(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, f"{SERVICES}/nobody{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["id"]) == ("/problems/unknown-instance", "nobody")


async def test_a_new_registration_on_an_address_and_port_evicts_the_old_holder(
    http: httpx.AsyncClient, name: str
) -> None:
    port = free_port()
    first = await register(http, name, port=port, id=f"{name}-1")
    await wait_for(http, name, first["id"])
    second = await register(http, f"{name}-new", port=port, id=f"{name}-2")
    await wait_for(http, f"{name}-new", second["id"])
    await wait_for(http, name)


async def test_several_instances_come_in_the_order_of_their_ids(http: httpx.AsyncClient, name: str) -> None:
    ids = [f"{name}-{number}" for number in (3, 1, 2)]
    for own_id in ids:
        await register(http, name, id=own_id)
    await wait_for(http, name, *ids)


async def test_a_service_that_is_not_there_has_no_instances(http: httpx.AsyncClient, name: str) -> None:
    assert await found(http, name) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"service": "Not A Name"}, "body.service"),
        ({"service": "x" * 64}, "body.service"),
        ({"port": 0}, "body.port"),
        ({"port": 70000}, "body.port"),
        ({"address": "not a host"}, "body.address"),
        ({"address": "0.0.0.0"}, "body.address"),
        ({"address": "169.254.169.254"}, "body.address"),
        ({"address": "fd00:ec2::254"}, "body.address"),
        ({"tags": ["a\nb"]}, "body.tags.0"),
        ({"metadata": {"a b": "v"}}, "body.metadata.a b.[key]"),
        ({"metadata": {"a": "v" * 513}}, "body.metadata.a"),
        ({"weight": 0}, "body.weight"),
        ({"ttl_seconds": 0}, "body.ttl_seconds"),
        ({"unknown": 1}, "body.unknown"),
    ],
)
async def test_what_is_wrong_with_a_registration_is_named(
    http: httpx.AsyncClient, name: str, change: dict[str, Any], field: str
) -> None:
    answer = await http.post(SERVICES, json={**body(name), **change})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]


async def test_a_body_that_is_not_json_is_400(http: httpx.AsyncClient) -> None:
    answer = await http.post(SERVICES, content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed-json")


async def test_discover_needs_a_name(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{SERVICES}/discover")
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "query.name")


async def test_the_join_token_cannot_touch_the_meshs_own_services(
    discovery: RunningDiscovery, http: httpx.AsyncClient, name: str
) -> None:
    own = body(f"toska-{name}", id=f"{name}-own")
    refused = await http.post(SERVICES, json=own)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    allowed = await http.post(SERVICES, json=own, headers=discovery.bearer("admin"))
    assert allowed.status_code == 201
    assert (await http.delete(f"{SERVICES}/{name}-own")).status_code == 403
    assert (await http.post(f"{SERVICES}/{name}-own/heartbeat")).status_code == 403
    stolen = body("mine", own["port"])
    assert (await http.post(SERVICES, json=stolen)).status_code == 403
    gone = await http.delete(f"{SERVICES}/{name}-own", headers=discovery.bearer("admin"))
    assert gone.status_code == 204


async def test_discovery_lists_itself_and_is_ready_and_documented(http: httpx.AsyncClient) -> None:
    await wait_until(lambda: _has_instances(http, "toska-discovery"))
    assert (await http.get("/health/ready")).status_code == 200
    detailed = (await http.get("/health/detailed")).json()
    assert detailed["service"] == "toska-discovery"
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert set(paths) == {
        SERVICES,
        *(f"{SERVICES}/{word}" for word in ("discover", "events", "graph", "instances", "versions")),
        f"{SERVICES}/{{instance_id}}",
        f"{SERVICES}/{{instance_id}}/heartbeat",
        f"{SERVICES}/{{instance_id}}/metadata",
        f"{SERVICES}/{{instance_id}}/metadata/history",
    }
    assert (await http.get("/docs")).status_code == 200


async def _has_instances(http: httpx.AsyncClient, name: str) -> bool:
    return len(await found(http, name)) >= 1


async def test_the_examples_of_the_documentation_work(http: httpx.AsyncClient) -> None:
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    (registration,) = schemas["Registration"]["examples"]
    (report,) = schemas["Report"]["examples"]
    answer = await http.post(SERVICES, json=registration)
    assert answer.status_code == 201, answer.text
    url = answer.headers["location"]
    assert (await http.post(f"{url}/heartbeat", json=report)).status_code == 200
    instance = (await http.get(url)).json()
    assert {key: instance[key] for key in registration if key != "metadata"} == {
        key: value for key, value in registration.items() if key != "metadata"
    }
    assert (instance["score"], instance["report"]["callers"]) == (report["score"], report["callers"])
    assert (await http.delete(url)).status_code == 204

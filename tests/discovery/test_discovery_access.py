"""Who may do what on discovery's two listeners: closed by default, each with its own words of refusal."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toska_common.clients.consul import ConsulClient
from toska_common.errors import Forbidden, Unauthenticated
from toska_tests.clients import http_client
from toska_tests.discovery_rig import RunningDiscovery, discovery_in

ORDERS: dict[str, Any] = {"service": "orders", "address": "127.0.0.1", "port": 9001}
REGISTER = "/v1/agent/service/register"


@pytest.fixture(scope="module")
async def discovery(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningDiscovery]:
    async with discovery_in(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client() as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", REGISTER),
        ("PUT", "/v1/agent/service/deregister/a"),
        ("PUT", "/v1/agent/check/pass/a"),
        ("PUT", "/v1/agent/check/warn/a"),
        ("PUT", "/v1/agent/check/fail/a"),
        ("PUT", "/v1/agent/check/update/a"),
        ("PUT", "/v1/kv/a"),
        ("DELETE", "/v1/kv/a"),
        ("PUT", "/v1/nowhere"),
    ],
)
async def test_a_strangers_change_on_the_consul_port_is_403_in_consuls_words(
    discovery: RunningDiscovery, http: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await http.request(method, discovery.consul + path)
    assert (answer.status_code, answer.text) == (403, "Permission denied")
    unknown = await http.request(method, discovery.consul + path, headers={"x-consul-token": "toska_admin_guess"})
    assert (unknown.status_code, unknown.text) == (403, "ACL not found")


@pytest.mark.parametrize("way", ["x-consul-token", "authorization", "query"])
async def test_a_token_may_come_in_each_of_consuls_ways(
    discovery: RunningDiscovery, http: httpx.AsyncClient, way: str
) -> None:
    token = discovery.credentials.join
    headers = {"x-consul-token": token} if way == "x-consul-token" else {}
    if way == "authorization":
        headers = {"authorization": f"Bearer {token}"}
    query = {"token": token} if way == "query" else {}
    url = discovery.consul + REGISTER
    assert (await http.put(url, json={"Name": "a"}, headers=headers, params=query)).status_code == 200


async def test_the_join_token_registers_and_renews_and_writes_no_key(discovery: RunningDiscovery) -> None:
    from datetime import timedelta

    from toska_common.clients.consul import ServiceRegistration, TTLCheck

    async with ConsulClient.open(discovery.consul, token=discovery.credentials.join) as consul:
        await consul.register_service(ServiceRegistration("joined", checks=(TTLCheck(timedelta(seconds=15)),)))
        await consul.pass_check("service:joined")
        await consul.deregister_service("joined")
        with pytest.raises(Forbidden, match="Permission denied"):
            await consul.kv_put("a", b"1")
        with pytest.raises(Forbidden):
            await consul.kv_delete("a")
    async with ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul:
        assert await consul.kv_put("a", b"1")
    async with ConsulClient.open(discovery.consul) as consul:
        with pytest.raises(Unauthenticated):
            await consul.kv_put("a", b"2")
        found, _ = await consul.kv_get("a")
        assert found is not None
        assert found.value == b"1"


async def put(discovery: RunningDiscovery, http: httpx.AsyncClient, access: str, path: str, body: Any = None) -> int:
    return (await http.put(discovery.consul + path, json=body, headers=discovery.bearer(access))).status_code


async def test_the_meshs_own_services_need_the_admin_token_in_every_way_of_changing_them(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    own = {"ID": "own", "Name": "toska-own", "Address": "127.0.0.1", "Port": 9100, "Check": {"TTL": "30s"}}
    assert await put(discovery, http, "join", REGISTER, own) == 403
    assert await put(discovery, http, "admin", REGISTER, own) == 200
    for path in (
        "deregister/own", "maintenance/own?enable=true", "../check/pass/service:own", "../check/fail/service:own",
    ):  # fmt: skip
        assert await put(discovery, http, "join", f"/v1/agent/service/{path}") == 403
    for stolen in (
        {"ID": "own", "Name": "mine"},  # its id
        {"Name": "mine", "Address": "localhost", "Port": 9100},  # its address and port
        {"Name": "mine", "Check": {"CheckID": "service:own", "TTL": "30s"}},  # its check
    ):
        assert await put(discovery, http, "join", REGISTER, stolen) == 403
    taken = {**ORDERS, "port": 9100}
    answer = await http.post(f"{discovery.rest}/api/v1/services", json=taken, headers=discovery.bearer("join"))
    assert answer.status_code == 403
    service = (await http.get(f"{discovery.consul}/v1/agent/services")).json()["own"]
    assert (service["Service"], service["Port"]) == ("toska-own", 9100)
    assert await put(discovery, http, "admin", "/v1/agent/service/deregister/own") == 200


async def test_checks_of_the_node_need_the_admin_token_in_every_way_of_changing_them(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    check = {"ID": "disk", "Name": "disk", "TTL": "30s", "Status": "passing"}
    assert await put(discovery, http, "join", "/v1/agent/check/register", check) == 403
    assert await put(discovery, http, "admin", "/v1/agent/check/register", check) == 200
    assert await put(discovery, http, "join", "/v1/agent/maintenance?enable=true") == 403
    for path in ("fail/disk", "update/disk", "deregister/disk"):
        assert await put(discovery, http, "join", f"/v1/agent/check/{path}", {"Status": "critical"}) == 403
    stolen = {"Name": "mine", "Check": {"CheckID": "disk", "TTL": "30s"}}
    assert await put(discovery, http, "join", REGISTER, stolen) == 403
    assert (await http.get(f"{discovery.consul}/v1/agent/checks")).json()["disk"]["Status"] == "passing"
    assert await put(discovery, http, "admin", "/v1/agent/check/deregister/disk") == 200


async def test_the_catalog_is_written_with_the_admin_token_alone(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    node = {"Node": "elsewhere", "Address": "10.0.0.1"}
    for path in ("register", "deregister"):
        assert await put(discovery, http, "join", f"/v1/catalog/{path}", node) == 403
        assert (await http.put(f"{discovery.consul}/v1/catalog/{path}", json=node)).status_code == 403
    assert await put(discovery, http, "admin", "/v1/catalog/register", node) == 200
    assert (await http.get(f"{discovery.consul}/v1/catalog/node/elsewhere")).json()["Node"]["Node"] == "elsewhere"
    assert await put(discovery, http, "admin", "/v1/catalog/deregister", node) == 200


async def test_nobody_but_the_admin_registers_as_consul_itself(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    assert await put(discovery, http, "join", REGISTER, {"Name": "consul", "Port": 9}) == 403


async def test_reads_are_open_on_loopback(discovery: RunningDiscovery, http: httpx.AsyncClient) -> None:
    for path in ("catalog/services", "health/service/a", "agent/services", "kv/none?keys", "status/leader"):
        assert (await http.get(f"{discovery.consul}/v1/{path}")).status_code in {200, 404}
    assert (await http.get(f"{discovery.rest}/api/v1/services")).status_code == 200


async def test_a_host_name_that_is_not_ours_is_refused_on_both_ports(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    for name in ("rebound.example", "127.0.0.1.rebound.example", ""):
        headers = {"host": name, **discovery.bearer()}
        on_consul = await http.get(f"{discovery.consul}/v1/catalog/services", headers=headers)
        assert on_consul.status_code == 403
        assert on_consul.text.startswith("Permission denied")
        on_rest = await http.get(f"{discovery.rest}/api/v1/services", headers=headers)
        assert on_rest.status_code == 421
    for name in ("localhost:8500", "127.0.0.1", "[::1]:1"):
        answer = await http.get(f"{discovery.consul}/v1/catalog/services", headers={"host": name})
        assert answer.status_code == 200


async def test_off_loopback_reads_need_a_token_and_those_of_keys_the_admins(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with discovery_in(tmp_path, host="0.0.0.0", allowed_hosts=("mesh.example",)) as discovery:
        url = f"{discovery.consul}/v1"

        async def read(path: str, access: str | None = None) -> int:
            headers = {} if access is None else discovery.bearer(access)
            return (await http.get(f"{url}/{path}", headers=headers)).status_code

        assert [await read("catalog/services", access) for access in (None, "join", "admin")] == [403, 200, 200]
        assert [await read("kv/?keys", access) for access in (None, "join", "admin")] == [403, 403, 200]
        named = await http.get(f"{url}/catalog/services", headers={"host": "mesh.example", **discovery.bearer("join")})
        assert named.status_code == 200
        rest = f"{discovery.rest}/api/v1/services"
        assert (await http.get(rest)).status_code == 401
        assert (await http.get(rest, headers=discovery.bearer())).status_code == 200
        assert (await http.get(f"{discovery.rest}/health/ready")).status_code == 200


async def test_a_strangers_change_by_rest_is_401_as_a_problem_document(
    discovery: RunningDiscovery, http: httpx.AsyncClient
) -> None:
    url = f"{discovery.rest}/api/v1/services"
    for method, path in (("POST", ""), ("DELETE", "/a"), ("POST", "/a/heartbeat")):
        answer = await http.request(method, url + path, json=ORDERS)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/unauthenticated"


@pytest.mark.parametrize("port_of", ["port", "consul_port"])
@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "127.0.0.2", "::ffff:127.0.0.1"])
async def test_the_meshs_own_addresses_cannot_be_registered(
    discovery: RunningDiscovery, http: httpx.AsyncClient, port_of: str, address: str
) -> None:
    own_port = getattr(discovery.settings, port_of)
    refused = await http.put(
        discovery.consul + REGISTER,
        json={"Name": "sly", "Address": address, "Port": own_port},
        headers=discovery.bearer("admin"),
    )
    assert (refused.status_code, "management address" in refused.text) == (400, True)
    problem = await http.post(
        f"{discovery.rest}/api/v1/services",
        json={"service": "sly", "address": address, "port": own_port},
        headers=discovery.bearer("admin"),
    )
    assert problem.status_code == 422
    assert problem.json()["problems"][0]["field"] == "body.address"

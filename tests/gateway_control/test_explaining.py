"""What would become of a request: what the API and the command tell is what then happens."""

import json
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.meshes import TOSKA
from toska_tests.ports import free_ports
from toska_tests.programs import finished

DEAD = free_ports(2)
ROUTING = """\
clusters:
  dead:
    endpoints: [{address: 127.0.0.1, port: %(dead)d}, {address: 127.0.0.1, port: %(other)d}]
    outlier: {consecutive_failures: 1, base_ejection: 60s}
  users:
    endpoints: [{address: 127.0.0.1, port: %(dead)d}, {address: 127.0.0.1, port: %(other)d}]
    balancer: ring_hash
    hash_key: {header: x-user}
policies:
  tagged: {timeout: 9s, escaped_slashes: keep}
routes:
  - name: orders
    match: {path_prefix: /orders, methods: [GET]}
    to: [{cluster: dead, weight: 3}, {cluster: users, weight: 1}]
  - name: beta
    match: {path_prefix: /orders, headers: {x-beta: "1"}}
    to: users
    policies: {timeout: 5s}
    policies_from: [tagged]
  - {name: dead, match: {path: /dead}, to: dead}
  - {name: users, match: {host: users.example, path_prefix: /}, to: users}
  - {name: old, match: {path: /old}, redirect: {to: /new}}
  - name: shop
    match: {path_template: '/shop/{item}', cookies: {country: {prefix: d}}, client_ip: [127.0.0.0/8]}
    priority: 5
    to: [{cluster: users, when: {headers: {x-canary: {present: true}}}}, {cluster: dead, weight: 9}, {cluster: users}]
    sticky: {header: x-user}
"""


@pytest.fixture
async def gateway(home: Path) -> AsyncGenerator[ControlMesh]:
    (home / "mesh.yaml").write_text(ROUTING % {"dead": DEAD, "other": DEAD + 1})
    async with control_mesh(home, "gateway", routes=home / "mesh.yaml") as mesh:
        yield mesh


async def explain(gateway: ControlMesh, method: str, url: str, *headers: str) -> dict[str, Any]:
    body = {"method": method, "url": url, "headers": list(headers)}
    answer = await gateway.http.post(f"{gateway.admin}/api/v1/gateway/explain", json=body, headers=gateway.bearer())
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_request_is_told_its_route_split_and_endpoints_and_why_not_others(gateway: ControlMesh) -> None:
    told = await explain(gateway, "GET", "/orders/%31?x=1")
    assert (told["outcome"], told["route"], told["path"]) == ("forwarded", "orders", "/orders/1")
    assert told["origin"] == "operator"
    assert [(one["name"], one["share"]) for one in told["clusters"]] == [("dead", 0.75), ("users", 0.25)]
    assert [one["share"] for one in told["clusters"][0]["endpoints"]] == [0.5, 0.5]
    others = {other["name"]: other["reasons"] for other in told["others"]}
    assert others["beta"] == ["header x-beta is not 1"]
    assert others["users"] == ["host is not users.example"]
    assert others["old"] == ["path is not /old"]


async def test_a_route_that_would_take_it_too_is_told_who_goes_before(gateway: ControlMesh) -> None:
    told = await explain(gateway, "GET", "/orders", "X-Beta: 1")
    assert told["route"] == "orders"
    others = {other["name"]: other["reasons"] for other in told["others"]}
    assert others["beta"] == ["route orders goes before it: it was written first"]


async def test_a_key_names_its_endpoint_and_policies_are_told_where_they_are_set(gateway: ControlMesh) -> None:
    told = await explain(gateway, "POST", "/orders", "x-beta: 1", "x-user: ann")
    assert (told["route"], told["policies"]) == ("beta", {"timeout": "5s", "escaped_slashes": "keep"})
    assert told["policies_from"] == ["tagged"]
    endpoints = told["clusters"][0]["endpoints"]
    assert sorted(one["share"] for one in endpoints) == [0.0, 1.0]
    again = await explain(gateway, "POST", "/orders", "x-beta: 1", "x-user: ann")
    assert again["clusters"][0]["endpoints"] == endpoints


async def test_it_is_told_which_part_of_a_split_takes_a_request_and_why(gateway: ControlMesh) -> None:
    async def asked(*headers: str) -> tuple[str, dict[str, float]]:
        told = await explain(gateway, "GET", "/shop/7", "Cookie: country=de", *headers)
        assert (told["route"], told["priority"], told["sticky"]) == ("shop", 5, {"header": "x-user"})
        return told["split"], {one["name"]: one["share"] for one in told["clusters"]}

    unknown, shares = await asked()
    assert unknown == "by weight; callers stay with theirs by header x-user, which is not known here"
    assert shares == {"users": 0.1, "dead": 0.9}
    why, shares = await asked("X-Canary: 1", "X-User: ann")
    assert (why, shares) == ("users: the conditions of its part hold", {"users": 1.0, "dead": 0.0})
    why, shares = await asked("X-User: ann")
    home = next(name for name, share in shares.items() if share)
    assert why == f"{home}: the caller stays with it, by header x-user"


async def test_each_kind_of_condition_that_does_not_hold_is_told(gateway: ControlMesh) -> None:
    body = {"method": "GET", "url": "/shop/1/2", "headers": ["Cookie: country=fr"], "client": "192.0.2.1"}
    answer = await gateway.http.post(f"{gateway.admin}/api/v1/gateway/explain", json=body, headers=gateway.bearer())
    others = {other["name"]: other["reasons"] for other in answer.json()["others"]}
    assert others["shop"] == [
        "path does not fit the route's path_template",
        "the client's address is not in 127.0.0.0/8",
        "cookie country does not begin with d",
    ]


async def test_endpoints_that_were_ejected_are_told_so(gateway: ControlMesh) -> None:
    assert (await gateway.get(f"{gateway.data}/dead")).status_code == 502
    endpoints = (await explain(gateway, "GET", "/dead"))["clusters"][0]["endpoints"]
    assert {one["state"].partition(" for")[0] for one in endpoints} == {"ejected"}
    assert [one["share"] for one in endpoints] == [0.5, 0.5]  # none is well, so all are tried


async def test_what_is_not_served_is_told_its_answer(gateway: ControlMesh) -> None:
    for method, url, status, error in (
        ("GET", "/none", 404, "no-route"),
        ("DELETE", "/orders", 405, "method-not-allowed"),
        ("GET", "/a%00b", 400, "bad-target"),
        ("BREW", "/orders", 501, "unknown-method"),
    ):
        told = await explain(gateway, method, url)
        assert (told["status"], told["error"]) == (status, error)
        if method == "GET" or method == "DELETE":
            answer = await gateway.http.request(method, f"{gateway.data}{url}")
            assert (answer.status_code, answer.headers["x-toska-error"]) == (status, error)
    assert (await explain(gateway, "DELETE", "/orders"))["allowed_methods"] == ["GET"]
    assert (await explain(gateway, "GET", "/old"))["redirect"] == {"to": "/new"}


async def test_nothing_can_be_slipped_into_the_question_and_it_needs_the_admin_token(gateway: ControlMesh) -> None:
    for wrong in (
        {"url": "/x\r\nx-a: 1"},
        {"url": "ftp://a/b"},
        {"url": "/a", "headers": ["x-a: 1\r\nx-b: 2"]},
        {"url": "/a", "method": "G ET"},
        {"url": "/€"},
    ):
        answer = await gateway.http.post(
            f"{gateway.admin}/api/v1/gateway/explain", json=wrong, headers=gateway.bearer()
        )
        assert answer.status_code == 422, answer.text
    refused = await gateway.http.post(f"{gateway.admin}/api/v1/gateway/explain", json={"url": "/old"})
    assert refused.status_code == 401


async def test_the_command_tells_a_person_or_a_script(gateway: ControlMesh, tmp_path: Path) -> None:
    async def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [TOSKA, "explain", *arguments, "--home", str(gateway.home), "--admin", gateway.admin]
        return await finished(command, cwd=tmp_path)

    shown = await run("POST", "/orders", "-H", "x-beta: 1", "-H", "x-user: ann")
    text = shown.stdout.decode()
    assert shown.returncode == 0
    assert "route      beta" in text
    assert "endpoint   127.0.0.1:" in text
    assert "not taken  orders: method is not GET" in text
    split = (await run("GET", "/shop/7", "-H", "cookie: country=de", "-H", "x-canary: 1")).stdout.decode()
    assert "route      shop  (rank 0, operator, priority 5)" in split
    assert "split      users: the conditions of its part hold" in split
    missing = await run("GET", "/none", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"] == "no-route"

"""Metadata with versions, on discovery's own registry and on a real Consul."""

from typing import Any

import anyio
import httpx
import pytest
from toska_tests.clients import http_client
from toska_tests.discovery_rest import SERVICES, body, found, register, wait_for
from toska_tests.discovery_rig import RunningDiscovery
from toska_tests.waiting import wait_until


def url(own_id: str) -> str:
    return f"{SERVICES}/{own_id}/metadata"


async def test_metadata_is_read_replaced_and_patched_with_a_version_each(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name, metadata={"team": "a", "tier": "1"}, zone="z"))["id"]
    first = await http.get(url(own_id))
    assert (first.json()["version"], first.json()["metadata"]) == (1, {"team": "a", "tier": "1"})
    assert first.headers["etag"].startswith('"1-')
    patched = await http.patch(url(own_id), json={"team": "b", "tier": None, "new": "x"})
    assert (patched.json()["version"], patched.json()["metadata"]) == (2, {"team": "b", "new": "x"})
    assert patched.headers["etag"].startswith('"2-')
    replaced = await http.put(url(own_id), json={"only": "this"})
    assert (replaced.json()["version"], replaced.json()["metadata"]) == (3, {"only": "this"})
    again = await http.put(url(own_id), json={"only": "this"})
    assert again.json()["version"] == 3
    history = (await http.get(f"{url(own_id)}/history")).json()
    assert [(item["version"], item["metadata"]) for item in history] == [
        (3, {"only": "this"}),
        (2, {"team": "b", "new": "x"}),
        (1, {"team": "a", "tier": "1"}),
    ]
    # Everybody who asks the registry sees it, and what the mesh keeps there is still there.
    await wait_until(lambda: _shows(http, name, "only", "this"))
    (instance,) = await found(http, name)
    assert (instance["zone"], instance["health"]) == ("z", "passing")
    assert "team" not in instance["metadata"]
    assert (await http.post(f"{SERVICES}/{own_id}/heartbeat")).status_code == 200


async def _shows(http: httpx.AsyncClient, name: str, key: str, value: str) -> bool:
    return any(instance["metadata"].get(key) == value for instance in await found(http, name))


async def test_a_change_of_a_version_that_is_no_longer_there_is_refused(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name, metadata={"a": "1"}))["id"]
    tag = (await http.get(url(own_id))).headers["etag"]
    assert (await http.put(url(own_id), json={"a": "2"}, headers={"if-match": tag})).status_code == 200
    refused = await http.put(url(own_id), json={"a": "3"}, headers={"if-match": tag})
    assert (refused.status_code, refused.json()["type"], refused.json()["version"]) == (
        412,
        "/problems/precondition-failed",
        2,
    )
    assert (await http.put(url(own_id), json={"a": "3"}, headers={"if-match": 'W/"2"'})).status_code == 412
    assert (await http.put(url(own_id), json={"a": "3"}, headers={"if-match": "*"})).status_code == 200
    assert (await http.get(url(own_id))).json()["metadata"] == {"a": "3"}


async def test_of_many_changes_at_once_none_is_lost(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name))["id"]
    statuses: list[int] = []

    async def add(number: int) -> None:
        statuses.append((await http.patch(url(own_id), json={f"k{number}": str(number)})).status_code)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(add, number)
    assert statuses == [200] * 10
    answer = (await http.get(url(own_id))).json()
    assert answer["version"] == 11
    assert answer["metadata"] == {f"k{number}": str(number) for number in range(10)}


async def test_of_many_changes_of_one_version_one_wins(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name))["id"]
    tag = (await http.get(url(own_id))).headers["etag"]
    winners: list[str] = []

    async def claim(who: str) -> None:
        answer = await http.put(url(own_id), json={"owner": who}, headers={"if-match": tag})
        if answer.status_code == 200:
            winners.append(who)
        else:
            assert answer.status_code == 412

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(claim, str(number))
    (winner,) = winners
    assert (await http.get(url(own_id))).json()["metadata"] == {"owner": winner}


async def test_a_registration_with_other_metadata_counts_as_a_version(http: httpx.AsyncClient, name: str) -> None:
    sent = body(name, id=f"{name}-1", metadata={"from": "app"})
    await http.post(SERVICES, json=sent)
    await http.patch(url(f"{name}-1"), json={"from": "operator"})
    await http.post(SERVICES, json=sent)
    answer = (await http.get(url(f"{name}-1"))).json()
    assert (answer["version"], answer["metadata"]) == (3, {"from": "app"})
    patched = (await http.patch(url(f"{name}-1"), json={"more": "x"})).json()
    assert (patched["version"], patched["metadata"]) == (4, {"from": "app", "more": "x"})


async def test_the_history_keeps_the_last_twenty(http: httpx.AsyncClient, name: str) -> None:
    own_id = (await register(http, name))["id"]
    for number in range(22):
        await http.put(url(own_id), json={"n": str(number)})
    history = (await http.get(f"{url(own_id)}/history")).json()
    assert [item["version"] for item in history] == list(range(23, 3, -1))


async def test_versions_are_forgotten_with_the_instance(http: httpx.AsyncClient, name: str) -> None:
    sent = body(name, id=f"{name}-1")
    await http.post(SERVICES, json=sent)
    await http.patch(url(f"{name}-1"), json={"a": "b"})
    await http.delete(f"{SERVICES}/{name}-1")
    await wait_for(http, name)
    assert (await http.get(url(f"{name}-1"))).status_code == 404
    await http.post(SERVICES, json=sent)
    assert (await http.get(url(f"{name}-1"))).json()["version"] == 1


@pytest.mark.parametrize(
    ("method", "sent", "field"),
    [
        ("PUT", {"a": 1}, "body.a"),
        ("PUT", {"a": None}, "body.a"),
        ("PUT", {"a b": "c"}, "body.a b.[key]"),
        ("PUT", {"a": "v" * 513}, "body.a"),
        ("PUT", {"toska-expose": "true"}, "body.toska-expose"),
        ("PATCH", {"toska-zone": None}, "body.toska-zone"),
        ("PATCH", {"a": ["b"]}, "body.a"),
        ("PUT", {f"k{number}": "v" for number in range(49)}, "body"),
        ("PUT", [], "body"),
    ],
)
async def test_what_is_wrong_with_metadata_is_named(
    http: httpx.AsyncClient, name: str, method: str, sent: Any, field: str
) -> None:
    own_id = (await register(http, name))["id"]
    answer = await http.request(method, url(own_id), json=sent)
    assert answer.status_code == 422, answer.text
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]


async def test_the_meshs_own_instances_need_the_admin_token(
    discovery: RunningDiscovery, http: httpx.AsyncClient, name: str
) -> None:
    own = body(f"toska-{name}", id=f"{name}-own")
    assert (await http.post(SERVICES, json=own, headers=discovery.bearer("admin"))).status_code == 201
    assert (await http.patch(url(f"{name}-own"), json={"a": "b"})).status_code == 403
    assert (await http.patch(url(f"{name}-own"), json={"a": "b"}, headers=discovery.bearer("admin"))).status_code == 200
    async with http_client(base_url=discovery.rest) as stranger:
        assert (await stranger.patch(url(f"{name}-own"), json={"a": "b"})).status_code == 401
    await http.delete(f"{SERVICES}/{name}-own", headers=discovery.bearer("admin"))


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
async def test_metadata_of_nobody_is_404(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, url("nobody"), json=None if method == "GET" else {})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-instance")

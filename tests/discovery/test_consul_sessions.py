"""Consul's API for sessions: what is true of a real Consul is true of our registry."""

import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from toska_common.clients.consul import ConsulClient
from toska_tests.discovery_rig import Answer, ConsulPort
from toska_tests.waiting import wait_until

NOBODY = "00000000-0000-0000-0000-000000000000"
NOT_AN_ID = "failed session lookup: index error: UUID must be 36 characters"
FIELDS = [
    "ID", "Name", "Node", "LockDelay", "Behavior", "TTL", "NodeChecks", "ServiceChecks", "CreateIndex", "ModifyIndex",
]  # fmt: skip


class SessionPort:
    """The session endpoints of one registry; ends what it created."""

    def __init__(self, port: ConsulPort) -> None:
        self.port = port
        self.created: list[str] = []

    async def create(self, **fields: Any) -> str:
        answer = await self.port.put("session/create", fields or None)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), answer.text
        body = json.loads(answer.content)
        assert [*body] == ["ID"]
        self.created.append(body["ID"])
        return body["ID"]

    async def info(self, session: str) -> list[dict[str, Any]]:
        return await self.port.read(f"session/info/{session}")


@pytest.fixture
async def sessions(port: ConsulPort) -> AsyncGenerator[SessionPort]:
    opened = SessionPort(port)
    yield opened
    for session in opened.created:
        await port.put(f"session/destroy/{session}")


@pytest.fixture
async def service(port: ConsulPort) -> AsyncGenerator[str]:
    """A service with a passing check, `service:NAME`, that the catalog knows."""
    name = f"s-{uuid.uuid4().hex[:12]}"
    await port.put("agent/service/register", {"Name": name, "Check": {"TTL": "60s", "Status": "passing"}})

    async def is_listed() -> bool:
        return bool(await port.read(f"health/checks/{name}"))

    await wait_until(is_listed)
    yield name
    await port.put(f"agent/service/deregister/{name}")


async def test_a_session_has_exactly_these_fields_and_defaults(port: ConsulPort, sessions: SessionPort) -> None:
    created = await sessions.create()
    assert str(uuid.UUID(created)) == created
    (session,) = await sessions.info(created)
    assert [*session] == FIELDS
    (node,) = await port.read("catalog/nodes")
    assert session["Node"] == node["Node"]
    assert (session["Name"], session["TTL"], session["Behavior"]) == ("", "", "release")
    assert session["LockDelay"] == 15_000_000_000
    assert (session["NodeChecks"], session["ServiceChecks"]) == (["serfHealth"], None)
    assert session["CreateIndex"] == session["ModifyIndex"] >= 1


async def test_what_is_asked_for_is_shown(sessions: SessionPort, service: str) -> None:
    check = f"service:{service}"
    created = await sessions.create(
        Name="n", TTL="30s", LockDelay="1m1s", Behavior="delete", ServiceChecks=[{"ID": check}]
    )
    (session,) = await sessions.info(created)
    assert (session["Name"], session["TTL"], session["Behavior"]) == ("n", "30s", "delete")
    assert session["LockDelay"] == 61_000_000_000
    assert session["ServiceChecks"] == [{"ID": check, "Namespace": ""}]
    (older,) = await sessions.info(await sessions.create(Checks=["serfHealth", check]))
    assert [*older] == [*FIELDS[:8], "Checks", *FIELDS[8:]]
    assert older["Checks"] == ["serfHealth", check]


@pytest.mark.parametrize(
    ("fields", "lock_delay_ns"),
    [({"LockDelay": 5}, 5_000_000_000), ({"LockDelay": 2000}, 2000), ({"lockdelay": "3s"}, 3_000_000_000)],
)
async def test_a_lock_delay_may_be_written_in_three_ways(
    sessions: SessionPort, fields: dict[str, Any], lock_delay_ns: int
) -> None:
    (session,) = await sessions.info(await sessions.create(**fields))
    assert session["LockDelay"] == lock_delay_ns


@pytest.mark.parametrize(
    ("fields", "node_checks"),
    [
        ({"Checks": []}, []),
        ({"Checks": None}, []),
        ({"NodeChecks": []}, []),
        ({"NodeChecks": None}, None),
        ({"NodeChecks": [], "Checks": ["serfHealth"]}, []),
        ({"NodeChecks": ["serfHealth"]}, ["serfHealth"]),
    ],
)
async def test_a_session_can_do_without_its_nodes_check(
    sessions: SessionPort, fields: dict[str, Any], node_checks: list[str] | None
) -> None:
    (session,) = await sessions.info(await sessions.create(**fields))
    assert session["NodeChecks"] == node_checks


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"TTL":"5s"}', 500, "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"),
        (b'{"TTL":"25h"}', 500, "Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]"),
        (b'{"TTL":"abc"}', 500, "Session TTL 'abc' invalid: time: invalid duration \"abc\""),
        (b'{"TTL":"10"}', 500, "Session TTL '10' invalid: time: missing unit in duration \"10\""),
        (b'{"Behavior":"x"}', 500, "Invalid Behavior setting 'x'"),
        (b'{"Node":"nowhere"}', 500, "Missing node registration"),
        (b'{"Node":""}', 500, "Must provide Node"),
        (b'{"Checks":["none"]}', 500, "Missing check 'none' registration"),
        (b'{"NodeChecks":["none"]}', 500, "Missing check 'none' registration"),
        (b'{"ServiceChecks":[{"ID":"none"}]}', 500, "Missing check 'none' registration"),
        (b'{"LockDelay":"abc"}', 400, 'Request decode failed: time: invalid duration "abc"'),
        (b"{", 400, "Request decode failed: unexpected EOF"),
        (
            b'{"TTL":10}',
            400,
            "Request decode failed: json: cannot unmarshal number into Go struct field .TTL of type string",
        ),
    ],
)
async def test_what_is_wrong_with_a_session_is_told_in_consuls_words(
    port: ConsulPort, body: bytes, status: int, text: str
) -> None:
    answer = await port.put("session/create", body)
    assert answer.status == status
    # Go writes a little more than we do after a wrong type.
    assert answer.text.replace("number 10", "number") == text


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "session/info/", 400, "Missing session"),
        ("PUT", "session/renew/", 400, "Missing session"),
        ("PUT", "session/destroy/", 400, "Missing session"),
        ("GET", "session/node/", 400, "Missing node name"),
        ("GET", "session/info/x", 500, NOT_AN_ID),
        ("PUT", "session/renew/x", 500, NOT_AN_ID),
        ("PUT", "session/destroy/x", 500, NOT_AN_ID),
        (
            "PUT",
            f"session/destroy/zz{NOBODY[2:]}",
            500,
            "failed session lookup: index error: Invalid UUID: encoding/hex: invalid byte: U+007A 'z'",
        ),
        ("PUT", f"session/renew/{NOBODY}", 404, f"Session id '{NOBODY}' not found"),
        ("PUT", "session/create?dc=elsewhere", 500, "No path to datacenter"),
        ("GET", "session/list?dc=elsewhere", 500, "No path to datacenter"),
        ("GET", "session/list?index=abc", 400, "Invalid index"),
        ("GET", "session/create", 405, "method GET not allowed"),
        ("PUT", "session/list", 405, "method PUT not allowed"),
        ("GET", "session/list/x", 404, ""),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_in_consuls_words(
    port: ConsulPort, method: str, path: str, status: int, text: str
) -> None:
    answer = await port.ask(method, path)
    assert (answer.status, answer.text) == (status, text)


async def test_nobodys_session_is_no_error_to_look_up_or_destroy(port: ConsulPort) -> None:
    answer = await port.get(f"session/info/{NOBODY}")
    assert (answer.status, json.loads(answer.content)) == (200, [])
    assert answer.index >= 1
    answer = await port.put(f"session/destroy/{NOBODY}")
    assert (answer.status, json.loads(answer.content)) == (200, True)


async def test_a_session_is_listed_alone_with_its_node_and_with_all(port: ConsulPort, sessions: SessionPort) -> None:
    created = [await sessions.create(Name=name) for name in ("one", "two")]
    (about,) = await sessions.info(created[0])
    for path in ("session/list", f"session/node/{about['Node']}"):
        listed = await port.read(path)
        assert [item["ID"] for item in listed] == sorted(item["ID"] for item in listed)
        assert [item for item in listed if item["ID"] == created[0]] == [about]
        assert created[1] in {item["ID"] for item in listed}
    assert await port.read("session/node/nowhere") == []
    assert await port.read(f"session/info/{created[0].upper()}") == [about]


async def test_a_renewal_answers_with_the_session_and_changes_nothing(port: ConsulPort, sessions: SessionPort) -> None:
    created = await sessions.create(TTL="10s")
    before = await sessions.info(created)
    answer = await port.put(f"session/renew/{created}")
    assert (answer.status, json.loads(answer.content)) == (200, before)
    assert "x-consul-index" not in answer.headers
    assert await sessions.info(created) == before


async def test_a_destroyed_session_is_gone_and_can_be_destroyed_again(port: ConsulPort, sessions: SessionPort) -> None:
    created = await sessions.create()
    for _ in range(2):
        answer = await port.put(f"session/destroy/{created}")
        assert (answer.status, json.loads(answer.content)) == (200, True)
    assert await sessions.info(created) == []
    assert (await port.put(f"session/renew/{created}")).status == 404


async def test_a_session_ends_when_its_check_turns_critical(
    port: ConsulPort, consul: ConsulClient, sessions: SessionPort, service: str
) -> None:
    created = await sessions.create(ServiceChecks=[{"ID": f"service:{service}"}])
    await consul.warn_check(f"service:{service}")
    assert await sessions.info(created)
    await consul.fail_check(f"service:{service}")

    async def has_ended() -> bool:
        return not await sessions.info(created)

    await wait_until(has_ended)
    answer = await port.put("session/create", {"ServiceChecks": [{"ID": f"service:{service}"}]})
    assert (answer.status, answer.text) == (500, f"Check 'service:{service}' is in critical state")


async def test_a_session_ends_when_its_check_is_removed(
    consul: ConsulClient, sessions: SessionPort, service: str
) -> None:
    bound = await sessions.create(Checks=["serfHealth", f"service:{service}"])
    free = await sessions.create()
    await consul.deregister_service(service)

    async def has_ended() -> bool:
        return not await sessions.info(bound)

    await wait_until(has_ended)
    assert await sessions.info(free)


async def test_a_session_of_another_node_ends_with_the_node_or_with_its_check_there(
    port: ConsulPort, sessions: SessionPort
) -> None:
    node = f"n-{uuid.uuid4().hex[:12]}"
    check = {"CheckID": f"c-{node}", "Name": "c", "Status": "passing"}
    await port.put("catalog/register", {"Node": node, "Address": "10.0.0.1", "Check": check})
    free = await sessions.create(Node=node, NodeChecks=[])
    bound = await sessions.create(Node=node, NodeChecks=[f"c-{node}"])
    assert [item["ID"] for item in await port.read(f"session/node/{node}")] == sorted([free, bound])
    critical = {**check, "Status": "critical"}
    await port.put("catalog/register", {"Node": node, "Address": "10.0.0.1", "Check": critical})
    assert [item["ID"] for item in await port.read(f"session/node/{node}")] == [free]
    await port.put("catalog/deregister", {"Node": node})
    assert await port.read(f"session/node/{node}") == []
    assert await sessions.info(free) == []


@pytest.mark.parametrize("path", ["session/list", "session/node/{node}", "session/info/{session}"])
async def test_who_waits_for_sessions_is_woken_by_their_ends_and_not_by_renewals(
    port: ConsulPort, sessions: SessionPort, path: str
) -> None:
    created = await sessions.create(TTL="10s")
    (about,) = await sessions.info(created)
    path = path.format(node=about["Node"], session=created)
    index = (await port.get(path)).index
    answers: list[Answer] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            answers.append(await port.get(f"{path}?index={index}&wait=30s"))

        group.start_soon(wait)
        await port.put(f"session/renew/{created}")
        await anyio.wait_all_tasks_blocked()
        assert not answers
        await port.put(f"session/destroy/{created}")
        await wait_until(lambda: bool(answers))
    assert answers[0].index > index
    assert created not in answers[0].text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"LockDelay": "-1s"}, "Request decode failed: LockDelay must not be negative"),
        ({"TLL": "10s"}, 'Request decode failed: json: unknown field "TLL"'),
        ({"LockDelay": True}, "Request decode failed: json: cannot unmarshal bool into Go struct field .LockDelay of"),
    ],
)
async def test_what_consul_silently_takes_for_something_else_is_refused_by_the_embedded_registry(
    ours: ConsulPort, fields: dict[str, Any], text: str
) -> None:
    answer = await ours.put("session/create", fields)
    assert answer.status == 400
    assert answer.text.startswith(text)

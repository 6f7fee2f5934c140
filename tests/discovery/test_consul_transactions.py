"""Consul's transactions: what is true of a real Consul is true of our registry."""

import base64
import json
import re
import uuid
from typing import Any

import anyio
import pytest
from toska_tests.discovery_rig import Answer, ConsulPort

NOBODY = "00000000-0000-0000-0000-000000000000"
READ = {"Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": ""}


@pytest.fixture
def root() -> str:
    """A prefix that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def kv(verb: str, key: str, value: bytes | None = None, **fields: Any) -> dict[str, Any]:
    given = {} if value is None else {"Value": base64.b64encode(value).decode()}
    return {"KV": {"Verb": verb, "Key": key, **given, **fields}}


async def send(port: ConsulPort, *operations: dict[str, Any]) -> Answer:
    answer = await port.put("txn", [*operations])
    assert answer.headers["content-type"] == "application/json", answer.text
    return answer


async def apply(port: ConsulPort, *operations: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await send(port, *operations)
    assert answer.status == 200, answer.text
    body = json.loads(answer.content)
    assert body["Errors"] is None
    return [result["KV"] for result in body["Results"]]


async def refused(port: ConsulPort, *operations: dict[str, Any]) -> dict[int, str]:
    answer = await send(port, *operations)
    assert answer.status == 409, answer.text
    body = json.loads(answer.content)
    assert body["Results"] is None
    assert all([*error] == ["OpIndex", "What"] for error in body["Errors"])
    return {error["OpIndex"]: error["What"] for error in body["Errors"]}


async def new_session(port: ConsulPort, **fields: Any) -> str:
    return json.loads((await port.put("session/create", {"LockDelay": "0s", **fields})).content)["ID"]


async def test_operations_see_those_before_them_and_share_one_index(port: ConsulPort, root: str) -> None:
    await port.put(f"kv/{root}/old", b"x")
    results = await apply(
        port,
        kv("set", f"{root}/a", b"hi", Flags=3),
        kv("get", f"{root}/a"),
        kv("delete-tree", f"{root}/o"),
        kv("set", f"{root}/b"),
        kv("get-tree", f"{root}/"),
        kv("delete", f"{root}/none"),
        kv("check-not-exists", f"{root}/old"),
    )
    assert [*results[0]] == ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
    assert [(item["Key"][len(root) :], item["Value"], item["Flags"]) for item in results] == [
        ("/a", None, 3), ("/a", "aGk=", 3), ("/b", None, 0), ("/a", "aGk=", 3), ("/b", None, 0),
    ]  # fmt: skip
    assert len({item["ModifyIndex"] for item in results}) == 1
    assert await port.read(f"kv/{root}/?keys") == [f"{root}/a", f"{root}/b"]
    assert (await port.get(f"kv/{root}/?recurse")).index == results[0]["ModifyIndex"]


async def test_one_operation_that_fails_undoes_all_and_every_failure_is_told(port: ConsulPort, root: str) -> None:
    (first,) = await apply(port, kv("set", f"{root}/a", b"1"))
    index = first["ModifyIndex"]
    problems = await refused(
        port,
        kv("set", f"{root}/new", b"x"),
        kv("get", f"{root}/none"),
        kv("cas", f"{root}/a", Index=1),
        kv("check-index", f"{root}/a", Index=1),
        kv("check-index", f"{root}/none", Index=1),
        kv("check-session", f"{root}/a", Session="x"),
        kv("check-session", f"{root}/none", Session="x"),
        kv("check-not-exists", f"{root}/a"),
        kv("delete-cas", f"{root}/a", Index=1),
        kv("lock", f"{root}/a"),
        kv("lock", f"{root}/a", Session=NOBODY),
        kv("unlock", f"{root}/a"),
        kv("unlock", f"{root}/a", Session=NOBODY),
        kv("bogus", f"{root}/a"),
        kv("delete", f"{root}/a"),
    )
    assert problems == {
        1: f'key "{root}/none" doesn\'t exist',
        2: f'failed to set key "{root}/a", index is stale',
        3: f'failed index check for key "{root}/a", current modify index {index} != 1',
        4: f'failed to check index, key "{root}/none" doesn\'t exist',
        5: f'failed session check for key "{root}/a", current session "" != "x"',
        6: f'failed to check session, key "{root}/none" doesn\'t exist',
        7: f'key "{root}/a" exists',
        8: f'failed to delete key "{root}/a", index is stale',
        9: "missing session",
        10: f'invalid session "{NOBODY}"',
        11: "missing session",
        12: f'failed to unlock key "{root}/a", lock isn\'t held, or is held by another session',
        13: 'unknown KV verb "bogus"',
    }
    assert await port.read(f"kv/{root}/?keys") == [f"{root}/a"]
    assert (await port.get(f"kv/{root}/?recurse")).index == index


async def test_what_cannot_be_right_is_told_before_anything_else(port: ConsulPort, root: str) -> None:
    assert await refused(port, kv("set", f"{root}/a"), kv("set", ""), kv("get", f"{root}/none")) == {
        1: "Must provide key"
    }


async def test_compare_and_set_of_several_keys_holds_for_all_or_none(port: ConsulPort, root: str) -> None:
    one, two = await apply(port, kv("cas", f"{root}/1", b"a", Index=0), kv("cas", f"{root}/2", b"a", Index=0))
    assert await refused(
        port, kv("cas", f"{root}/1", b"b", Index=one["ModifyIndex"]), kv("cas", f"{root}/2", b"b", Index=0)
    ) == {1: f'failed to set key "{root}/2", index is stale'}
    await apply(
        port,
        kv("check-index", f"{root}/1", Index=one["ModifyIndex"]),
        kv("cas", f"{root}/2", b"b", Index=two["ModifyIndex"]),
        kv("delete-cas", f"{root}/1", Index=one["ModifyIndex"]),
    )
    assert await port.read(f"kv/{root}/?keys") == [f"{root}/2"]


async def test_locks_are_taken_and_given_back_in_transactions(port: ConsulPort, root: str) -> None:
    one, two = await new_session(port), await new_session(port)
    key = f"{root}/lock"
    results = await apply(
        port, kv("lock", key, b"v", Session=one), kv("check-session", key, Session=one), kv("get", key)
    )
    assert [(item["LockIndex"], item["Session"]) for item in results] == [(1, one)] * 3
    assert await refused(port, kv("lock", key, Session=two)) == {0: f'failed to lock key "{key}", lock is already held'}
    (released,) = await apply(port, kv("unlock", key, b"v", Session=one))
    assert (released["LockIndex"], "Session" in released) == (1, False)
    (locked,) = await apply(port, kv("lock", key, b"v", Session=two))
    assert locked["LockIndex"] == 2
    for session in (one, two):
        await port.put(f"session/destroy/{session}")


async def test_a_lost_lock_has_its_delay_in_transactions_too(port: ConsulPort, root: str) -> None:
    one, two = await new_session(port, LockDelay="30s"), await new_session(port)
    await apply(port, kv("lock", f"{root}/lock", Session=one))
    await port.put(f"session/destroy/{one}")
    assert await refused(port, kv("lock", f"{root}/lock", Session=two), kv("get", f"{root}/none")) == {
        0: f'failed to lock key "{root}/lock" due to lock delay'
    }
    await port.put(f"session/destroy/{two}")


async def test_a_transaction_that_only_reads_says_how_consistent_it_was(port: ConsulPort, root: str) -> None:
    await apply(port, kv("set", f"{root}/a", b"1"))
    answer = await send(port, kv("get", f"{root}/a"), kv("get-tree", f"{root}/none"))
    body = json.loads(answer.content)
    assert [*body] == ["Results", "Errors", *READ]
    assert {name: body[name] for name in READ} == READ
    assert (answer.headers["x-consul-knownleader"], answer.headers["x-consul-lastcontact"]) == ("true", "0")
    assert "x-consul-index" not in answer.headers
    missing = await send(port, kv("get", f"{root}/none"))
    assert missing.status == 409
    assert json.loads(missing.content)["Errors"] == [{"OpIndex": 0, "What": f'key "{root}/none" doesn\'t exist'}]


@pytest.mark.parametrize("body", [b"[]", b"null", b'[{"KV":null}]'])
async def test_nothing_to_do_is_done(port: ConsulPort, body: bytes) -> None:
    answer = await port.put("txn", body)
    assert (answer.status, json.loads(answer.content)) == (200, {"Results": [], "Errors": None, **READ})


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "Failed to parse body: EOF"),
        (b"[{", 400, "Failed to parse body: unexpected EOF"),
        (b"{}", 400, "Failed to parse body: json: cannot unmarshal object into Go value of type api.TxnOps"),
        (b'[{"Bogus":{}}]', 400, 'Failed to parse body: json: unknown field "Bogus"'),
        (b'[{"KV":{"Verb":"set","Key":"a","Bogus":1}}]', 400, 'Failed to parse body: json: unknown field "Bogus"'),
        (
            b'[{"KV":{"Verb":"set","Key":"a","Value":"###"}}]',
            400,
            "Failed to parse body: illegal base64 data at input byte 0",
        ),
        (
            b'[{"KV":{"Verb":"set","Key":3}}]',
            400,
            "Failed to parse body: json: cannot unmarshal number into Go struct field .Key of type string",
        ),
        (
            json.dumps([{"KV": {"Verb": "get", "Key": "a"}}] * 65).encode(),
            413,
            "Transaction contains too many operations (65 > 64)",
        ),
        (
            b'[{"KV":{"Verb":"set","Key":"a","Value":"' + b"A" * 2**19 + b'"}}]',
            413,
            "Request body(524332 bytes) too large, max size: 524288 bytes.",
        ),
    ],
)
async def test_what_is_wrong_with_a_body_is_told_in_consuls_words(
    port: ConsulPort, body: bytes, status: int, text: str
) -> None:
    answer = await port.put("txn", body)
    assert answer.status == status
    # Go names the struct and the path to the field as well, and Consul a page of its documentation.
    assert re.sub(r"field \w+\.KV", "field ", answer.text).partition(" See ")[0] == text


async def test_sixty_four_operations_are_not_too_many(port: ConsulPort, root: str) -> None:
    assert len(await apply(port, *(kv("set", f"{root}/{number:02}", b"x") for number in range(64)))) == 64
    assert len(await port.read(f"kv/{root}/?keys")) == 64


def on_node(verb: str, node: str, **fields: Any) -> dict[str, Any]:
    return {"Node": {"Verb": verb, "Node": {"Node": node, **fields}}}


def on_service(verb: str, node: str, own_id: str, **fields: Any) -> dict[str, Any]:
    return {"Service": {"Verb": verb, "Node": node, "Service": {"ID": own_id, "Service": own_id, **fields}}}


def on_check(verb: str, node: str, own_id: str, **fields: Any) -> dict[str, Any]:
    return {"Check": {"Verb": verb, "Check": {"Node": node, "CheckID": own_id, **fields}}}


async def commit(port: ConsulPort, *operations: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await send(port, *operations)
    assert answer.status == 200, answer.text
    return json.loads(answer.content)["Results"]


async def test_a_node_its_service_its_check_and_a_key_are_written_at_one_index(port: ConsulPort, root: str) -> None:
    written = await commit(
        port,
        on_node("set", root, Address="10.0.0.1", Meta={"zone": "a"}),
        on_service("set", root, root, Port=80, Tags=["x"], Weights={"Passing": 0, "Warning": 0}),
        on_check("cas", root, "c", Name="up", Status="passing", ServiceID=root, ModifyIndex=0),
        on_check("set", root, "own", Definition={"HTTP": "http://a", "Interval": "10s"}),
        kv("set", f"{root}/a", b"1"),
    )
    assert [[*result] for result in written] == [["Node"], ["Service"], ["Check"], ["Check"], ["KV"]]
    node, service, check, own, key = (next(iter(result.values())) for result in written)
    index = key["ModifyIndex"]
    assert {part[name] for part in (node, service, check, own, key) for name in ("CreateIndex", "ModifyIndex")} == {
        index
    }
    indexes = {"CreateIndex": index, "ModifyIndex": index}
    assert node == {
        "ID": "", "Node": root, "Address": "10.0.0.1", "Datacenter": "dc1", "TaggedAddresses": None,
        "Meta": {"zone": "a"}, **indexes,
    }  # fmt: skip
    assert service == {
        "ID": root, "Service": root, "Tags": ["x"], "Address": "", "Meta": None, "Port": 80,
        "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": False,
        "Proxy": {"MeshGateway": {}, "Expose": {}}, "Connect": {}, **indexes,
    }  # fmt: skip
    assert check == {
        "Node": root, "CheckID": "c", "Name": "up", "Status": "passing", "Notes": "", "Output": "", "ServiceID": root,
        "ServiceName": root, "ServiceTags": ["x"], "Type": "", "Definition": {}, **indexes,
    }  # fmt: skip
    assert (own["Status"], own["ServiceTags"], own["Type"]) == ("critical", None, "")
    assert own["Definition"] == {"Interval": "10s", "HTTP": "http://a"}
    assert (await port.read(f"catalog/node/{root}"))["Services"][root] == service
    assert await port.read(f"health/checks/{root}") == [check]
    read = [on_node("get", root.upper()), on_service("get", root, root), on_check("get", root.upper(), "c")]
    answer = await send(port, *read)
    assert json.loads(answer.content) == {"Results": written[:3], "Errors": None, **READ}
    again = await commit(port, on_node("set", root, Address="10.0.0.1", Meta={"zone": "a"}))
    assert again == written[:1], "the same again changed something"
    await commit(port, on_node("delete", root))


async def test_operations_on_the_catalog_ask_for_indexes_and_say_what_is_wrong(port: ConsulPort, root: str) -> None:
    await commit(
        port, on_node("cas", root, Address="10.0.0.1"), on_service("cas", root, "s"), on_check("set", root, "c")
    )
    stale = {"ModifyIndex": 1}
    assert await refused(
        port,
        on_node("get", "none"), on_service("get", root, "none"), on_check("get", "none", "c"),
        on_node("cas", root, **stale), on_service("cas", root, "s", **stale), on_check("cas", root, "c"),
        on_node("delete-cas", root, **stale), on_service("delete-cas", root, "none"),
        on_check("delete-cas", root, "c", **stale), on_node("x", root), on_service("x", root, "s"),
        on_check("x", root, "c"), on_service("set", "none", "s"), on_check("set", "none", "c"),
        on_check("set", root, "d", ServiceID="none"),
    ) == {
        0: 'node "none" doesn\'t exist',
        1: f'service "none" on node "{root}" doesn\'t exist',
        2: 'check "c" on node "none" doesn\'t exist',
        3: f'failed to set node "{root}", index is stale',
        4: f'failed to set service "s" on node "{root}", index is stale',
        5: f'failed to set check "c" on node "{root}", index is stale',
        6: f'failed to delete node "{root}", index is stale',
        7: f'failed to delete service "none" on node "{root}", index is stale',
        8: f'failed to delete check "c" on node "{root}", index is stale',
        9: 'unknown Node verb "x"',
        10: 'unknown Service verb "x"',
        11: 'unknown Check verb "x"',
        12: "Missing node registration",
        13: "Missing node registration",
        14: "Missing service registration",
    }  # fmt: skip
    assert await refused(
        port, on_node("set", ""), on_node("delete", root, ID="x"), on_node("get", "none"),
        {"Service": {"Verb": "delete", "Node": root, "Service": {"ID": "s"}}},
        on_service("set", root, "s", Address="0.0.0.0"),
    ) == {
        0: "Must provide node",
        1: "Bad node ID: uuid string is wrong length",
        3: "Must provide service name with ID",
        4: "Invalid service address",
    }  # fmt: skip
    gone = [on_check("delete", root, "c"), on_service("delete", root, "s"), on_node("delete", root)]
    assert await commit(port, *gone, *gone[2:]) == []
    assert await port.read(f"catalog/node/{root}") is None


async def test_a_transaction_whose_last_operation_fails_leaves_nothing_of_it(port: ConsulPort, root: str) -> None:
    old, identity = f"{root}-old", str(uuid.uuid4())
    await commit(
        port,
        on_node("set", old, ID=identity, Address="10.0.0.1"),
        on_service("set", old, root, Port=80),
        on_check("set", old, "c", Status="passing", ServiceID=root),
    )
    session = await new_session(port, Node=old, NodeChecks=[], Checks=["c"])
    paths = [f"catalog/node/{old}", f"health/service/{root}", f"health/node/{old}", f"session/node/{old}"]
    before = [await port.get(path) for path in paths]
    assert await refused(
        port,
        on_service("set", old, root, Port=81),
        on_check("set", old, "c", Status="critical", ServiceID=root),
        on_node("set", root, ID=identity, Address="10.0.0.2"),  # the same machine: the old name goes
        on_service("set", root, root, Port=82),
        on_check("set", root, "c", Status="passing"),
        kv("set", f"{root}/a", b"1"),
        kv("get", f"{root}/none"),
    ) == {6: f'key "{root}/none" doesn\'t exist'}
    after = [await port.get(path) for path in paths]
    assert [(answer.content, answer.index) for answer in after] == [(answer.content, answer.index) for answer in before]
    assert await port.read(f"catalog/node/{root}") is None
    assert (await port.get(f"kv/{root}/?keys")).status == 404
    await port.put(f"session/destroy/{session}")
    await commit(port, on_node("delete", old))


async def test_a_session_whose_node_a_transaction_takes_away_locks_nothing(port: ConsulPort, root: str) -> None:
    await commit(port, on_node("set", root, Address="10.0.0.1"))
    session = await new_session(port, Node=root, NodeChecks=[])
    lock = kv("lock", f"{root}/lock", Session=session)
    assert await refused(port, on_node("delete", root), lock) == {1: f'invalid session "{session}"'}
    await commit(port, lock, on_node("delete", root))
    assert await port.read(f"session/info/{session}") == []
    (entry,) = await port.read(f"kv/{root}/lock")
    assert "Session" not in entry


async def test_the_registrys_own_node_is_read_and_not_written(ours: ConsulPort, root: str) -> None:
    own = (await ours.read("agent/self"))["Config"]
    name, identity = own["NodeName"], own["NodeID"]
    read = [on_node("get", name), on_service("get", name, "consul"), on_check("get", name, "serfHealth")]
    assert [[*result] for result in await commit(ours, *read)] == [["Node"], ["Service"], ["Check"]]
    refusal = f"{name} is the registry's own node; register services and checks on it with the agent"
    assert await refused(
        ours,
        on_node("delete", name), on_service("set", name, root), on_check("delete", name.upper(), "serfHealth"),
        on_node("set", root, ID=identity, Address="10.0.0.1"),
    ) == {
        0: refusal, 1: refusal, 2: refusal,
        3: f"Bad node ID: it is that of the registry's own node {name}",
    }  # fmt: skip
    assert await refused(ours, on_check("set", root, "c", Status="x"), on_service("set", root, "s", Kind="mesh")) == {
        0: "Invalid check status: 'x'",
        1: "Invalid service: Kind is not supported by this registry",
    }


async def test_a_transaction_on_the_catalog_wakes_who_waits_for_the_service(port: ConsulPort, root: str) -> None:
    await commit(port, on_node("set", root, Address="10.0.0.1"), on_service("set", root, root, Port=80))
    index = (await port.get(f"health/service/{root}")).index
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await port.get(f"health/service/{root}?index={index}&wait=10s"))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        key, check = kv("set", f"{root}/a", b"1"), on_check("set", root, "c", Status="passing", ServiceID=root)
        await commit(port, check, key)
    (answer,) = answers
    (shown,) = json.loads(answer.content)[0]["Checks"]
    assert (shown["CheckID"], answer.index) == ("c", shown["ModifyIndex"])
    assert answer.index > index
    await commit(port, on_node("delete", root))

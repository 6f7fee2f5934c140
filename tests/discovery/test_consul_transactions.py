"""Consul's transactions: what is true of a real Consul is true of our registry."""

import base64
import json
import re
import uuid
from typing import Any

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

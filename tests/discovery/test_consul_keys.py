"""Consul's API for keys and values: what is true of a real Consul is true of our registry."""

import base64
import uuid
from typing import Any

import pytest
from toska_common.clients.consul import ConsulClient
from toska_tests.discovery_rig import ConsulPort


@pytest.fixture
def root() -> str:
    """A prefix that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


async def put(port: ConsulPort, key: str, value: bytes = b"v", query: str = "") -> bool:
    answer = await port.put(f"kv/{key}{query}", value)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return {"true": True, "false": False}[answer.text.strip()]


async def modify_index(port: ConsulPort, key: str) -> int:
    (entry,) = await port.read(f"kv/{key}")
    return entry["ModifyIndex"]


async def keys_of(port: ConsulPort, query: str) -> list[str]:
    return await port.read(f"kv/{query}")


async def test_a_key_is_shown_with_exactly_these_fields(port: ConsulPort, root: str) -> None:
    assert await put(port, f"{root}/a", b"hello", "?flags=42")
    answer = await port.get(f"kv/{root}/a")
    (entry,) = await port.read(f"kv/{root}/a")
    assert [*entry] == ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
    assert (entry["Key"], entry["Flags"], entry["LockIndex"]) == (f"{root}/a", 42, 0)
    assert base64.b64decode(entry["Value"]) == b"hello"
    assert entry["CreateIndex"] == entry["ModifyIndex"] == answer.index
    assert answer.headers["x-consul-knownleader"] == "true"
    assert answer.headers["x-consul-lastcontact"] == "0"


async def test_a_value_may_be_any_bytes_or_none(port: ConsulPort, root: str) -> None:
    blob = bytes(range(256))
    await put(port, f"{root}/blob", blob)
    await put(port, f"{root}/empty", b"")
    raw = await port.get(f"kv/{root}/blob?raw")
    assert raw.content == blob
    assert raw.headers["content-type"] == "text/plain"
    assert raw.headers["x-content-type-options"] == "nosniff"
    assert raw.headers["content-security-policy"] == "sandbox"
    (empty,) = await port.read(f"kv/{root}/empty")
    assert empty["Value"] is None


async def test_a_key_that_is_not_there_is_404_with_an_index(port: ConsulPort, root: str) -> None:
    for query in ("", "?raw", "?recurse", "?keys"):
        answer = await port.get(f"kv/{root}/none{query}")
        assert (answer.status, answer.content) == (404, b"")
        assert answer.index >= 1


async def test_flags_hold_64_bits(port: ConsulPort, root: str) -> None:
    await put(port, f"{root}/a", b"", f"?flags={2**64 - 1}")
    assert (await port.read(f"kv/{root}/a"))[0]["Flags"] == 2**64 - 1


async def test_the_same_value_again_leaves_the_index_alone_and_another_raises_it(port: ConsulPort, root: str) -> None:
    await put(port, f"{root}/a", b"1")
    first = await modify_index(port, f"{root}/a")
    await put(port, f"{root}/a", b"1")
    assert await modify_index(port, f"{root}/a") == first
    await put(port, f"{root}/a", b"1", "?flags=7")
    second = await modify_index(port, f"{root}/a")
    await put(port, f"{root}/a", b"2", "?flags=7")
    third = await modify_index(port, f"{root}/a")
    assert first < second < third
    (entry,) = await port.read(f"kv/{root}/a")
    assert entry["CreateIndex"] == first


async def test_compare_and_set_writes_only_over_what_was_seen(port: ConsulPort, root: str) -> None:
    assert await put(port, f"{root}/a", b"1", "?cas=0")
    assert not await put(port, f"{root}/a", b"2", "?cas=0")
    seen = await modify_index(port, f"{root}/a")
    assert not await put(port, f"{root}/a", b"2", f"?cas={seen + 1}")
    assert await put(port, f"{root}/a", b"2", f"?cas={seen}")
    assert not await put(port, f"{root}/a", b"3", f"?cas={seen}")
    assert not await put(port, f"{root}/other", b"1", "?cas=5")
    assert (await port.get(f"kv/{root}/a?raw")).content == b"2"


async def test_compare_and_delete_removes_only_what_was_seen(port: ConsulPort, root: str) -> None:
    await put(port, f"{root}/a")
    seen = await modify_index(port, f"{root}/a")
    for cas, gone in ((0, "false"), (seen + 1, "false"), (seen, "true"), (seen, "true")):
        answer = await port.ask("DELETE", f"kv/{root}/a?cas={cas}")
        assert (answer.status, answer.text.strip()) == (200, gone)
    assert (await port.get(f"kv/{root}/a")).status == 404


async def test_a_prefix_lists_keys_in_order_and_by_its_letters(port: ConsulPort, root: str) -> None:
    for key in ("b", "a/2", "a/1", "a", "ab/x"):
        await put(port, f"{root}/{key}", key.encode())
    entries = await port.read(f"kv/{root}/a?recurse")
    assert [entry["Key"] for entry in entries] == [f"{root}/{key}" for key in ("a", "a/1", "a/2", "ab/x")]
    assert await keys_of(port, f"{root}/?keys") == [f"{root}/{key}" for key in ("a", "a/1", "a/2", "ab/x", "b")]
    assert await keys_of(port, f"{root}/?keys&separator=/") == [f"{root}/{key}" for key in ("a", "a/", "ab/", "b")]
    assert await keys_of(port, f"{root}/a/?keys&separator=/") == [f"{root}/a/1", f"{root}/a/2"]
    assert await keys_of(port, f"{root}/?keys&recurse&raw&separator=b") == [
        f"{root}/{key}" for key in ("a", "a/1", "a/2", "ab", "b")
    ]


async def test_a_prefix_is_removed_whole(port: ConsulPort, root: str) -> None:
    for key in ("a/1", "a/2", "ab", "b"):
        await put(port, f"{root}/{key}")
    for _ in range(2):
        answer = await port.ask("DELETE", f"kv/{root}/a?recurse")
        assert (answer.status, answer.text.strip()) == (200, "true")
    assert await keys_of(port, f"{root}/?keys") == [f"{root}/b"]


async def test_a_prefixs_index_tells_of_writes_and_deletions_below_it_and_of_no_others(
    port: ConsulPort, root: str
) -> None:
    await put(port, f"{root}/a/1")
    await put(port, f"{root}/a/2")
    first = (await port.get(f"kv/{root}/a/?recurse")).index
    assert first == await modify_index(port, f"{root}/a/2")
    await port.ask("DELETE", f"kv/{root}/a/1")
    second = (await port.get(f"kv/{root}/a/?recurse")).index
    assert second > first
    await put(port, f"{root}/elsewhere")
    assert (await port.get(f"kv/{root}/a/?recurse")).index == second
    assert (await port.get(f"kv/{root}/a/?keys")).index == second
    assert (await port.get(f"kv/{root}/a/2")).index == first


async def test_keys_may_hold_any_character(port: ConsulPort, consul: ConsulClient, root: str) -> None:
    for key in ("sp ace", "ümlaut/日本", "q?u=e&r#y", "pl+us", "per%cent", "trailing/"):
        assert await consul.kv_put(f"{root}/{key}", key.encode())
        found, _ = await consul.kv_get(f"{root}/{key}")
        assert found is not None
        assert (found.key, found.value) == (f"{root}/{key}", key.encode())
    names, _ = await consul.kv_keys(f"{root}/")
    assert len(names) == 6
    assert await keys_of(port, f"{root}/?keys") == names


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "kv/", 400, "Missing key name"),
        ("GET", "kv/?raw", 400, "Missing key name"),
        ("PUT", "kv/", 400, "Missing key name"),
        ("DELETE", "kv/", 400, "Missing key name"),
        ("PUT", "kv/a?cas=abc", 500, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ("PUT", "kv/a?cas=", 500, 'strconv.ParseUint: parsing "": invalid syntax'),
        ("PUT", "kv/a?cas=-1", 500, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("PUT", "kv/a?flags=abc", 500, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ("PUT", f"kv/a?flags={2**64}", 500, f'strconv.ParseUint: parsing "{2**64}": value out of range'),
        ("DELETE", "kv/a?cas=x", 500, 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("PUT", "kv/a?cas=0&acquire=x", 400, "Conflicting flags: acquire=x&cas=0"),
        ("DELETE", "kv/a?recurse&cas=1", 400, "Conflicting flags: cas=1&recurse="),
        ("GET", "kv/a?index=abc", 400, "Invalid index"),
        ("GET", "kv/a?index=1&wait=soon", 400, "Invalid wait time"),
        ("GET", "kv/a?index=1&wait=10", 400, "Invalid wait time"),
        ("GET", "kv/a?dc=elsewhere", 500, "No path to datacenter"),
        ("POST", "kv/a", 405, "method POST not allowed"),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_in_consuls_words(
    port: ConsulPort, method: str, path: str, status: int, text: str
) -> None:
    answer = await port.ask(method, path, b"v" if method == "PUT" else None)
    assert (answer.status, answer.text) == (status, text)


async def test_a_value_that_is_too_long_is_refused(port: ConsulPort, root: str) -> None:
    longest = b"x" * 512 * 1024
    assert await put(port, f"{root}/long", longest)
    answer = await port.put(f"kv/{root}/longer", longest + b"x")
    assert answer.status == 413
    assert answer.text.startswith("Request body(524289 bytes) too large, max size: 524288 bytes.")
    assert (await port.get(f"kv/{root}/longer")).status == 404


async def test_a_double_slash_in_a_path_is_redirected(port: ConsulPort) -> None:
    answer = await port.ask("GET", "kv//a b")
    assert (answer.status, answer.headers["location"]) == (301, "/v1/kv/a%20b")


def decoded(entries: list[dict[str, Any]]) -> dict[str, bytes]:
    return {entry["Key"]: base64.b64decode(entry["Value"] or "") for entry in entries}

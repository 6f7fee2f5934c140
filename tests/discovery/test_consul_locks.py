"""Consul's locks of keys: what is true of a real Consul is true of our registry."""

import base64
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from toska_tests.discovery_rig import Answer, ConsulPort
from toska_tests.waiting import wait_until

NOBODY = "00000000-0000-0000-0000-000000000000"
Create = Callable[..., Awaitable[str]]


@pytest.fixture
def key() -> str:
    """A key that no other test has."""
    return f"l-{uuid.uuid4().hex[:12]}/lock"


@pytest.fixture
async def session(port: ConsulPort) -> AsyncGenerator[Create]:
    """Creates sessions, without lock-delay unless asked for one; they end with the test."""
    created: list[str] = []

    async def create(**fields: Any) -> str:
        answer = await port.put("session/create", {"LockDelay": "0s", **fields})
        created.append(json.loads(answer.content)["ID"])
        return created[-1]

    yield create
    for one in created:
        await port.put(f"session/destroy/{one}")


async def write(port: ConsulPort, key: str, query: str, value: bytes = b"v") -> bool:
    answer = await port.put(f"kv/{key}?{query}", value)
    assert answer.status == 200, answer.text
    return json.loads(answer.content)


async def entry(port: ConsulPort, key: str) -> dict[str, Any]:
    (found,) = await port.read(f"kv/{key}")
    return {**found, "Value": base64.b64decode(found["Value"] or "")}


async def test_a_lock_has_one_holder_and_shows_who(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(), await session()
    assert await write(port, key, f"acquire={one}", b"1")
    held = await entry(port, key)
    assert [*held] == ["LockIndex", "Key", "Flags", "Value", "Session", "CreateIndex", "ModifyIndex"]
    assert (held["LockIndex"], held["Session"], held["Value"]) == (1, one, b"1")
    assert not await write(port, key, f"acquire={two}", b"2")
    assert not await write(port, key, f"release={two}", b"2")
    assert await entry(port, key) == held


async def test_the_holder_may_lock_again_and_only_a_new_value_changes_the_key(
    port: ConsulPort, session: Create, key: str
) -> None:
    one = await session()
    assert await write(port, key, f"acquire={one}", b"1")
    held = await entry(port, key)
    assert await write(port, key, f"acquire={one}", b"1")
    assert await entry(port, key) == held
    assert await write(port, key, f"acquire={one}&flags=7", b"2")
    again = await entry(port, key)
    assert (again["LockIndex"], again["Value"], again["Flags"]) == (1, b"2", 7)
    assert again["ModifyIndex"] > held["ModifyIndex"]


async def test_each_new_holder_has_a_higher_lock_index(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(), await session()
    fences: list[int] = []
    for holder in (one, two, one):
        assert await write(port, key, f"acquire={holder}")
        fences.append((await entry(port, key))["LockIndex"])
        assert await write(port, key, f"release={holder}", b"free")
        released = await entry(port, key)
        assert "Session" not in released
        assert (released["LockIndex"], released["Value"]) == (fences[-1], b"free")
        assert not await write(port, key, f"release={holder}")
    assert fences == [1, 2, 3]


async def test_a_key_that_was_there_can_be_locked(port: ConsulPort, session: Create, key: str) -> None:
    await write(port, key, "flags=3", b"before")
    assert await write(port, key, f"acquire={await session()}", b"held")
    held = await entry(port, key)
    assert (held["LockIndex"], held["Value"], held["Flags"]) == (1, b"held", 0)


async def test_a_plain_write_and_a_cas_leave_the_lock_with_its_holder(
    port: ConsulPort, session: Create, key: str
) -> None:
    one = await session()
    await write(port, key, f"acquire={one}")
    assert await write(port, key, "", b"over")
    written = await entry(port, key)
    assert (written["Session"], written["Value"]) == (one, b"over")
    assert not await write(port, key, "cas=1", b"no")
    assert await write(port, key, f"cas={written['ModifyIndex']}", b"swapped")
    assert (await entry(port, key))["Session"] == one
    assert not await write(port, key, f"acquire={await session()}")


async def test_a_plain_write_keeps_the_fencing_value_in_the_embedded_registry(ours: ConsulPort, key: str) -> None:
    created = json.loads((await ours.put("session/create", {"LockDelay": "0s"})).content)["ID"]
    await write(ours, key, f"acquire={created}")
    await write(ours, key, "", b"over")
    assert (await entry(ours, key))["LockIndex"] == 1  # a real Consul sets it back to 0
    await ours.put(f"session/destroy/{created}")


async def test_a_deleted_lock_is_nobodys(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(LockDelay="60s"), await session()
    await write(port, key, f"acquire={one}")
    await port.ask("DELETE", f"kv/{key}")
    assert await write(port, key, f"acquire={two}")
    assert (await entry(port, key))["LockIndex"] == 1


async def test_the_locks_of_a_session_that_ends_are_released(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(), await session()
    for name in ("a", "b"):
        assert await write(port, f"{key}/{name}", f"acquire={one}", b"kept")
    before = await entry(port, f"{key}/a")
    await port.put(f"session/destroy/{one}")
    for name in ("a", "b"):
        freed = await entry(port, f"{key}/{name}")
        assert "Session" not in freed
        assert (freed["LockIndex"], freed["Value"]) == (1, b"kept")
        assert freed["ModifyIndex"] > before["ModifyIndex"]
        assert await write(port, f"{key}/{name}", f"acquire={two}")
        assert (await entry(port, f"{key}/{name}"))["LockIndex"] == 2


async def test_a_session_that_deletes_takes_its_keys_with_it(port: ConsulPort, session: Create, key: str) -> None:
    one = await session(Behavior="delete")
    await write(port, f"{key}/held", f"acquire={one}")
    await write(port, f"{key}/given-back", f"acquire={one}")
    await write(port, f"{key}/given-back", f"release={one}")
    await port.put(f"session/destroy/{one}")
    assert (await port.get(f"kv/{key}/held")).status == 404
    assert await port.read(f"kv/{key}?keys") == [f"{key}/given-back"]


async def test_nobody_gets_a_lost_lock_before_its_delay_is_over(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(LockDelay="1500ms"), await session()
    await write(port, key, f"acquire={one}")
    await port.put(f"session/destroy/{one}")
    assert not await write(port, key, f"acquire={two}")
    assert await write(port, key, "", b"plain writes pass")

    async def is_acquired() -> bool:
        return await write(port, key, f"acquire={two}")

    assert await wait_until(is_acquired) > 0.5


async def test_a_released_lock_has_no_delay(port: ConsulPort, session: Create, key: str) -> None:
    one, two = await session(LockDelay="60s"), await session()
    await write(port, key, f"acquire={one}")
    await write(port, key, f"release={one}")
    assert await write(port, key, f"acquire={two}")
    await port.put(f"session/destroy/{one}")
    assert (await entry(port, key))["Session"] == two


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("acquire=", 500, "missing session"),
        ("release=", 500, "missing session"),
        ("acquire=xx", 500, "failed session lookup: index error: UUID must be 36 characters"),
        (f"acquire={NOBODY}", 500, f'invalid session "{NOBODY}"'),
        (f"release={NOBODY}", 200, "false"),
        (f"acquire={NOBODY}&release={NOBODY}", 400, f"Conflicting flags: acquire={NOBODY}&release={NOBODY}"),
        (f"cas=0&release={NOBODY}", 400, f"Conflicting flags: cas=0&release={NOBODY}"),
    ],
)
async def test_who_has_no_session_gets_no_lock(port: ConsulPort, key: str, query: str, status: int, text: str) -> None:
    answer = await port.put(f"kv/{key}?{query}", b"v")
    assert (answer.status, answer.text.strip()) == (status, text)
    assert (await port.get(f"kv/{key}")).status == 404


@pytest.mark.parametrize("path", ["kv/{key}", "kv/{key}?recurse", "kv/{key}?keys"])
@pytest.mark.parametrize("change", ["acquire", "release", "destroy"])
async def test_who_waits_for_a_key_is_woken_when_its_lock_changes_hands(
    port: ConsulPort, session: Create, key: str, path: str, change: str
) -> None:
    one = await session()
    await write(port, key, "" if change == "acquire" else f"acquire={one}", b"same")
    path = path.format(key=key)
    index = (await port.get(path)).index
    answers: list[Answer] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            separator = "&" if "?" in path else "?"
            answers.append(await port.get(f"{path}{separator}index={index}&wait=30s"))

        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        if change == "destroy":
            await port.put(f"session/destroy/{one}")
        else:
            assert await write(port, key, f"{change}={one}", b"same")
        await wait_until(lambda: bool(answers))
    assert answers[0].index > index

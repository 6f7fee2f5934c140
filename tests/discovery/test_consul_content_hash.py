"""Consul's API for waiting on an agent's service by the hash of its content."""

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from toska_tests.discovery_rig import Answer, ConsulPort

HASH = "x-consul-contenthash"


@pytest.fixture
async def name(port: ConsulPort) -> AsyncGenerator[str]:
    """A service that no other test has, with one passing instance."""
    service = f"s-{uuid.uuid4().hex[:12]}"
    await register(port, service)
    yield service
    await port.put(f"agent/service/deregister/{service}")


async def register(port: ConsulPort, name: str, **body: Any) -> None:
    answer = await port.put(
        "agent/service/register", {"Name": name, "Check": {"TTL": "1h", "Status": "passing"}, **body}
    )
    assert answer.status == 200


async def after(port: ConsulPort, name: str, change: Callable[[], Awaitable[object]]) -> Answer:
    """The answer of a query that waits for the next content, while `change` happens."""
    seen = (await port.get(f"agent/service/{name}")).headers[HASH]
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await port.get(f"agent/service/{name}?hash={seen}&wait=60s"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await change()
    return answers[0]


async def test_who_waits_by_hash_is_woken_by_another_content(port: ConsulPort, name: str) -> None:
    seen = (await port.get(f"agent/service/{name}")).headers[HASH]
    answer = await after(port, name, partial(register, port, name, Tags=["new"]))
    assert answer.status == 200
    assert answer.headers[HASH] != seen
    assert (await port.read(f"agent/service/{name}"))["ContentHash"] == answer.headers[HASH]
    assert '"new"' in answer.text


async def test_who_waits_by_hash_learns_that_the_instance_is_gone(port: ConsulPort, name: str) -> None:
    answer = await after(port, name, partial(port.put, f"agent/service/deregister/{name}"))
    assert (answer.status, answer.text) == (404, f"unknown service ID: {name}")


async def test_another_hash_is_answered_at_once_and_the_same_one_when_the_time_is_up(
    port: ConsulPort, name: str
) -> None:
    at_once = await port.get(f"agent/service/{name}?hash=other&wait=60s")
    assert at_once.status == 200
    seen = at_once.headers[HASH]
    with anyio.fail_after(20):
        waited = await port.get(f"agent/service/{name}?hash={seen}&wait=300ms")
    assert (waited.status, waited.headers[HASH], waited.content) == (200, seen, at_once.content)
    assert (await port.get("agent/service/none?hash=other&wait=60s")).status == 404


async def test_a_verdict_is_no_new_content(port: ConsulPort, name: str) -> None:
    seen = (await port.get(f"agent/service/{name}")).headers[HASH]
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await port.get(f"agent/service/{name}?hash={seen}&wait=500ms"))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await port.put(f"agent/check/fail/service:{name}")
        assert not answers
    assert answers[0].headers[HASH] == seen


async def test_a_wait_that_is_no_duration_is_refused(port: ConsulPort, name: str) -> None:
    answer = await port.get(f"agent/service/{name}?hash=x&wait=bad")
    assert (answer.status, answer.text) == (400, "Invalid wait time")

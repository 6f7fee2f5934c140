"""Consul's user events: what is true of a real Consul is true of our registry."""

import base64
import json
import uuid
from typing import Any

import anyio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_discovery.user_events import KEPT, EventBuffer, UserEvent
from toska_tests.discovery_rig import Answer, ConsulPort
from toska_tests.waiting import wait_until

OPEN = "error parsing regexp: missing closing ): `((`"


@pytest.fixture
def name() -> str:
    """An event that no other test fires."""
    return f"e-{uuid.uuid4().hex[:12]}"


async def fire(port: ConsulPort, name: str, payload: bytes | None = None, query: str = "") -> dict[str, Any]:
    answer = await port.put(f"event/fire/{name}?{query}", payload)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return json.loads(answer.content)


async def wait_for(port: ConsulPort, name: str, count: int) -> list[dict[str, Any]]:
    async def are_there() -> bool:
        return len(await port.read(f"event/list?name={name}")) == count

    await wait_until(are_there)
    return await port.read(f"event/list?name={name}")


async def test_an_event_is_told_and_listed_with_exactly_these_fields(port: ConsulPort, name: str) -> None:
    fired = await fire(port, name, b"payload")
    fields = ["ID", "Name", "Payload", "NodeFilter", "ServiceFilter", "TagFilter", "Version", "LTime"]
    assert [*fired] == fields
    assert base64.b64decode(fired["Payload"]) == b"payload"
    assert (fired["Name"], fired["Version"], fired["LTime"]) == (name, 1, 0)
    (listed,) = await wait_for(port, name, 1)
    assert [*listed] == fields
    assert listed["LTime"] > 0
    assert {**listed, "LTime": 0} == fired


async def test_events_are_listed_in_their_order_all_or_those_of_one_name(port: ConsulPort, name: str) -> None:
    await fire(port, name)
    await wait_for(port, name, 1)
    await fire(port, f"{name}/other", b"x")
    await wait_for(port, f"{name}/other", 1)
    await fire(port, name, b"y")
    assert [event["Payload"] for event in await wait_for(port, name, 2)] == [None, "eQ=="]
    listed = [event for event in await port.read("event/list") if event["Name"].startswith(name)]
    assert [event["Name"] for event in listed] == [name, f"{name}/other", name]
    times = [event["LTime"] for event in listed]
    assert times == sorted(set(times))


async def test_an_event_is_kept_by_those_whom_it_is_meant_for(
    port: ConsulPort, consul: ConsulClient, name: str
) -> None:
    await consul.register_service(ServiceRegistration(name, tags=("blue", "x")))
    node = (await port.read("agent/self"))["Config"]["NodeName"]
    mine = [f"node=^{node}$", f"service={name[:5]}", f"service={name}&tag=^bl", f"node=.&service={name}"]
    for query in (*mine, "node=^nowhere$", f"service={name}-not", f"service={name}&tag=green"):
        await fire(port, name, query=query)
    await fire(port, f"{name}-last")
    await wait_for(port, f"{name}-last", 1)
    listed = await wait_for(port, name, len(mine))
    assert [event["ServiceFilter"] for event in listed] == ["", name[:5], name, name]


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("PUT", "event/fire/", 400, "Missing name"),
        ("PUT", "event/fire/x?node=((", 500, f"Invalid node filter: {OPEN}"),
        (
            "PUT",
            "event/fire/x?service=((",
            500,
            f"Invalid service filter: {OPEN}",
        ),
        ("PUT", "event/fire/x?tag=y", 500, "Cannot provide tag filter without service filter"),
        (
            "PUT",
            "event/fire/x?service=a&tag=((",
            500,
            f"Invalid tag filter: {OPEN}",
        ),
        ("PUT", "event/fire/x?dc=elsewhere", 500, "No path to datacenter"),
        ("GET", "event/fire/x", 405, "method GET not allowed"),
        ("PUT", "event/list", 405, "method PUT not allowed"),
        ("GET", "event/list?index=abc", 400, "Invalid index"),
    ],
)
async def test_what_is_wrong_is_told_in_consuls_words(
    port: ConsulPort, method: str, path: str, status: int, text: str
) -> None:
    answer = await port.ask(method, path)
    assert (answer.status, answer.text) == (status, text)


async def test_an_event_that_is_too_long_is_refused(port: ConsulPort, name: str) -> None:
    answer = await port.put(f"event/fire/{name}", b"x" * 600)
    assert answer.status == 500
    assert "user event exceeds configured limit of 512 bytes before encoding" in answer.text


async def test_the_index_stands_for_the_latest_event_and_who_waits_is_woken_by_the_next(
    port: ConsulPort, name: str
) -> None:
    empty = await port.get(f"event/list?name={name}")
    assert (empty.index, json.loads(empty.content)) == (1, [])
    await fire(port, name)
    (first,) = await wait_for(port, name, 1)
    answer = await port.get(f"event/list?name={name}")
    digits = first["ID"].replace("-", "")
    assert answer.index == int(digits[:16], 16) ^ int(digits[16:], 16)
    assert {"x-consul-knownleader", "x-consul-lastcontact"}.isdisjoint(answer.headers)
    # Any other index, older or newer, is answered at once.
    assert (await port.get(f"event/list?name={name}&index={answer.index - 1}&wait=30s")).index == answer.index
    woken: list[Answer] = []
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            woken.append(await port.get(f"event/list?name={name}&index={answer.index}&wait=30s"))

        group.start_soon(wait)
        await fire(port, f"{name}-other")
        await wait_for(port, f"{name}-other", 1)
        assert not woken
        await fire(port, name, b"second")
        await wait_until(lambda: bool(woken))
    assert woken[0].index != answer.index
    assert len(json.loads(woken[0].content)) == 2


def test_the_latest_events_are_kept_and_older_ones_forgotten() -> None:
    events = EventBuffer("node")
    fired = [events.fire(UserEvent(str(number)), []) for number in range(KEPT + 10)]
    assert [event.id for event in events.list_named("")] == [event.id for event in fired[10:]]

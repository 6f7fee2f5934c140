"""Server-sent events of changes, over real sockets, on its own registry and on a real Consul."""

import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.feed import Feed, Happened, Missed, Quiet
from toska_discovery.member import Member
from toska_tests.clients import http_client
from toska_tests.discovery_rest import SERVICES, body, register, wait_for
from toska_tests.discovery_rig import discovery_in
from toska_tests.waiting import unhindered_s, wait_until

EVENTS = f"{SERVICES}/events"


class Reader:
    """Reads an event stream as browsers do."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def next(self, within: float = 8.0) -> tuple[str, dict[str, Any]]:
        """The next event and its data."""
        fields: dict[str, str] = {}
        with anyio.fail_after(within):
            async for line in self._lines:
                if line == "" and "data" in fields:
                    self.last_id = fields["id"]
                    return fields["event"], json.loads(fields["data"])
                name, _, value = line.partition(": ")
                fields[name] = value
        raise EOFError

    async def line(self, within: float = 8.0) -> str:
        """The next line, whatever it is."""
        with anyio.fail_after(within):
            return await anext(self._lines)


@asynccontextmanager
async def reading(http: httpx.AsyncClient, name: str = "", last_id: str = "") -> AsyncGenerator[Reader]:
    headers = {"last-event-id": last_id} if last_id else {}
    async with http.stream("GET", EVENTS, params={"name": name} if name else {}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Reader(response)


async def test_the_life_of_an_instance_is_told_event_by_event(http: httpx.AsyncClient, name: str) -> None:
    async with reading(http, name) as reader:
        assert (await reader.next())[0] == "ready"
        instance = await register(http, name, id=f"{name}-1", ttl_seconds=1)
        kind, event = await reader.next()
        assert (kind, event["instance"]["id"], event["instance"]["health"]) == ("registered", instance["id"], "passing")
        await http.patch(f"{SERVICES}/{name}-1/metadata", json={"team": "a"})
        kind, event = await reader.next()
        assert (kind, event["instance"]["metadata"]["team"]) == ("updated", "a")
        kind, event = await reader.next()
        assert (kind, event["instance"]["health"]) == ("health-changed", "critical")
        await http.delete(f"{SERVICES}/{name}-1")
        kind, event = await reader.next()
        assert (kind, event["instance"]["id"]) == ("deregistered", f"{name}-1")


async def test_a_reader_goes_on_after_the_event_it_saw_last(http: httpx.AsyncClient, name: str) -> None:
    async with reading(http, name) as reader:
        await reader.next()
        await register(http, name, id=f"{name}-1")
        assert (await reader.next())[1]["instance"]["id"] == f"{name}-1"
        position = reader.last_id
    await register(http, name, id=f"{name}-2")
    await register(http, name, id=f"{name}-3")
    await wait_for(http, name, *(f"{name}-{number}" for number in (1, 2, 3)), order="id")
    async with reading(http, name, position) as reader:
        ids = {(await reader.next())[1]["instance"]["id"] for _ in range(2)}
        assert ids == {f"{name}-2", f"{name}-3"}


@pytest.mark.parametrize("position", ["nonsense", "00000000-5", "00000000-99999999999999999999"])
async def test_a_position_that_means_nothing_here_is_answered_by_reset(
    http: httpx.AsyncClient, name: str, position: str
) -> None:
    async with reading(http, name, position) as reader:
        assert (await reader.next())[0] == "reset"
        await register(http, name, id=f"{name}-1")
        assert (await reader.next())[0] == "registered"


@pytest.mark.alone
async def test_streams_end_in_order_and_at_once_when_discovery_stops(tmp_path: Path) -> None:
    async def read_to_the_end(url: str, began: anyio.Event) -> None:
        async with http_client(base_url=url) as http, reading(http) as reader:
            await reader.next()
            began.set()
            with contextlib.suppress(EOFError):
                while True:
                    await reader.next(within=20)
            ended.append("completely")

    ended: list[str] = []

    async def at_once() -> bool:
        took = 0.0
        ended.clear()
        async with anyio.create_task_group() as group:
            async with discovery_in(tmp_path) as discovery:
                for _ in range(20):
                    began = anyio.Event()
                    group.start_soon(read_to_the_end, discovery.rest, began)
                    await began.wait()
                stopping_at = unhindered_s()
            took = unhindered_s() - stopping_at
            await wait_until(lambda: len(ended) == 20)
        return took < 2

    await wait_until(at_once, what="an end that no reader holds up")


async def test_what_happens_on_the_consul_port_is_told_as_well(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        http_client(base_url=discovery.rest, headers=discovery.bearer("join")) as http,
        reading(http, "plain") as reader,
    ):
        await reader.next()
        sent = {"Name": "plain", "Port": 9001}
        registered = await http.put(f"{discovery.consul}/v1/agent/service/register", json=sent)
        assert registered.status_code == 200
        assert (await reader.next())[0] == "registered"
        evictor = body("other", 9001)
        assert (await http.post(SERVICES, json=evictor)).status_code == 201
        kind, event = await reader.next()
        assert (kind, event["reason"]) == ("deregistered", "evicted")


async def test_a_reader_that_falls_behind_the_history_is_told_to_start_anew() -> None:
    feed = Feed(history=3)
    news = feed.read("", 0.01)
    member = Member("a-1", "a", "127.0.0.1", 1)
    assert isinstance(await anext(news), Quiet)
    for health in (Health.PASSING, Health.WARNING, Health.CRITICAL):
        feed.publish("health-changed", Member("a-1", "a", "127.0.0.1", 1, health=health))
    first = await anext(news)
    assert isinstance(first, Happened)
    assert (first.number, first.member.health) == (1, Health.PASSING)
    for _ in range(3):
        feed.publish("updated", member)
    assert isinstance(await anext(news), Missed)
    feed.publish("updated", member)
    following = await anext(news)
    assert isinstance(following, Happened)
    assert following.number == 7
    feed.stop()
    with pytest.raises(StopAsyncIteration):
        await anext(news)
    assert feed.readers == 0

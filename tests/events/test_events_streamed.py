"""Events as they come: server-sent events and WebSockets of the events service, over sockets."""

import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.event_streams import Reader, reading
from toska_tests.waiting import PATIENT_S, wait_until


@pytest.fixture(scope="module")
async def events(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningEvents]:
    home: Path = tmp_path_factory.mktemp("home")
    async with (
        discovery_in(home) as discovery,
        events_service(discovery, stream_heartbeat="50ms", stream_patience="300ms", max_streams=20) as running,
    ):
        yield running


async def publish(events: RunningEvents, topic: str, data: Any, **options: Any) -> None:
    await events.post("publish", {"topic": topic, "data": data, **options})


async def test_events_are_streamed_as_they_come_and_resumed_where_the_reader_was(events: RunningEvents) -> None:
    async with reading(events, "topic=sse.%23&where=region=eu") as reader:
        await publish(events, "other.topic", 0)
        await publish(events, "sse.a", 1, attributes={"region": "us"})
        await publish(events, "sse.a", 2, attributes={"region": "eu"})
        first = await reader.next()
    document = json.loads(first["data"])
    assert (document["type"], document["data"], document["specversion"]) == ("sse.a", 2, "1.0")
    await publish(events, "sse.b", 3, attributes={"region": "eu"})
    async with reading(events, "topic=sse.%23&where=region=eu", last=first["id"]) as reader:
        assert await reader.data() == 3


async def test_a_reader_that_has_had_nothing_yet_misses_nothing_when_it_comes_back(events: RunningEvents) -> None:
    await publish(events, "gap.before", 0)
    async with events.http.stream("GET", f"{events.url}/stream?topic=gap.%23") as answer:
        ready = await Reader(answer.aiter_lines()).next()
    await publish(events, "gap.missed", 1)
    async with reading(events, "topic=gap.%23", last=ready["id"]) as reader:
        assert await reader.data() == 1


async def test_a_reader_that_comes_back_skips_nothing_for_its_priority(events: RunningEvents) -> None:
    await publish(events, "level.x", 0, priority="low")
    await publish(events, "level.x", 1)
    await publish(events, "level.x", 2, priority="high")
    async with reading(events, "topic=level.%23&beginning=true") as reader:
        first = await reader.next()
        assert json.loads(first["data"])["data"] == 0
    async with reading(events, "topic=level.%23", last=first["id"]) as reader:
        assert [await reader.data() for _ in range(2)] == [1, 2]


async def test_what_was_scheduled_takes_no_reader_back(events: RunningEvents) -> None:
    async with reading(events, "topic=later.%23") as reader:
        await publish(events, "later.x", 1, delay="300ms")
        await publish(events, "later.x", 2)
        assert int((await reader.next())["id"]) > 0
        scheduled = await reader.next()
    assert json.loads(scheduled["data"])["data"] == 1
    assert not scheduled.get("id")


async def test_a_stream_begins_where_it_is_told_to(events: RunningEvents) -> None:
    for number in range(3):
        await publish(events, "past.x", number)
    async with reading(events, "topic=past.*&beginning=true") as reader:
        assert [await reader.data() for _ in range(3)] == [0, 1, 2]
    offset = (await events.get("log?topic=past.x"))[2]["offset"]
    async with reading(events, f"topic=past.*&offset={offset}") as reader:
        assert await reader.data() == 2


async def test_readers_of_a_group_share_its_events_and_need_a_token(events: RunningEvents) -> None:
    refused = await events.ask("GET", "stream?topic=team.%23&group=team", access="")
    assert (refused.status_code, refused.json()["needs"]) == (401, "join")
    async with reading(events, "topic=team.%23&group=team", access="join") as reader:
        await publish(events, "team.x", 1)
        assert await reader.data() == 1
        await wait_until(lambda: _is_settled(events, "team"), within=PATIENT_S)
    await publish(events, "team.x", 2)
    async with reading(events, "topic=team.%23&group=team", access="join") as reader:
        assert await reader.data() == 2


async def _is_settled(events: RunningEvents, group: str) -> bool:
    entry = await events.get(f"groups/{group}")
    return (entry["acked"], entry["unsettled"]) == (1, 0)


async def test_a_quiet_stream_shows_that_it_lives(events: RunningEvents) -> None:
    async with events.http.stream("GET", f"{events.url}/stream?topic=quiet.%23") as answer:
        lines = answer.aiter_lines()
        with anyio.fail_after(PATIENT_S):
            assert [line async for line in _comments(lines, 2)] == [": still here"] * 2


async def _comments(lines: AsyncIterator[str], most: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith(":"):
            yield line
            most -= 1
        if not most:
            return


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "query.topic"),
        ("topic=a..b", "query.topic"),
        ("topic=a&group=-", "query.group"),
        ("topic=a&where=region", "query.where"),
        ("topic=a&more=1", "query.more"),
        ("topic=a&offset=-1", "query.offset"),
        ("topic=a&offset=1&beginning=true", "query"),
    ],
)
async def test_what_is_wrong_with_a_stream_is_named(events: RunningEvents, query: str, field: str) -> None:
    answer = await events.ask("GET", f"stream?{query}")
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, field)


async def test_an_id_of_another_stream_is_refused(events: RunningEvents) -> None:
    answer = await events.ask("GET", "stream?topic=a", headers={"last-event-id": "abc-1"})
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "header.last-event-id")


async def test_a_reader_that_takes_nothing_is_dropped_and_others_go_on(events: RunningEvents) -> None:
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", events.settings.port))
        idle.sendall(
            b"GET /api/v1/events/stream?topic=slow.%23&group=slow HTTP/1.1\r\nhost: localhost\r\n"
            + f"authorization: {events.bearer('join')['authorization']}\r\n\r\n".encode()
        )

        async def has_members(count: int) -> bool:
            return [g["members"] for g in await events.get("groups") if g["name"] == "slow"] == [count]

        async def is_there() -> bool:
            return await has_members(1)

        async def is_gone() -> bool:
            return await has_members(0)

        await wait_until(is_there, within=PATIENT_S)
        async with reading(events, "topic=slow.%23") as reader:
            for number in range(60):
                await publish(events, "slow.x", [number, "x" * 200_000])
                assert (await reader.data())[0] == number
        await wait_until(is_gone, within=PATIENT_S)
    assert (await events.get("groups/slow"))["lag"] > 0


async def test_only_so_many_read_at_a_time(events: RunningEvents) -> None:
    async with anyio.create_task_group() as group:

        async def read_on(*, task_status: TaskStatus[None]) -> None:
            async with reading(events, "topic=many.%23"):
                task_status.started()
                await anyio.sleep_forever()

        for _ in range(20):
            await group.start(read_on)
        answer = await events.ask("GET", "stream?topic=many.%23")
        assert (answer.status_code, answer.json()["detail"]) == (503, "20 readers follow events already")
        group.cancel_scope.cancel()


async def test_streams_end_whole_and_at_once_when_the_service_stops(tmp_path: Path) -> None:
    ended: list[str] = []

    async def read_to_the_end(events: RunningEvents, *, task_status: TaskStatus[None]) -> None:
        async with events.http.stream("GET", f"{events.url}/stream?topic=%23", timeout=PATIENT_S) as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != "event: ready":
                pass
            task_status.started()
            async for _ in lines:
                pass
        ended.append("whole")

    async with discovery_in(tmp_path) as discovery, anyio.create_task_group() as group:
        async with events_service(discovery) as events:
            await group.start(read_to_the_end, events)
        # A stream that had to be cut would have raised.
        assert ended == ["whole"]

"""Events over WebSockets: told, settled by hand, taken back, refused, and closed for a reason."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.waiting import PATIENT_S
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(scope="module")
async def events(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningEvents]:
    home: Path = tmp_path_factory.mktemp("home")
    async with discovery_in(home) as discovery, events_service(discovery) as running:
        yield running


def connecting(events: RunningEvents, query: str, *, access: str = "", origin: str | None = None) -> connect:
    url = f"ws://127.0.0.1:{events.settings.port}/api/v1/events/ws?{query}"
    headers = {**(events.bearer(access) if access else {}), **({"origin": origin} if origin else {})}
    return connect(url, additional_headers=headers, open_timeout=PATIENT_S)


async def next_of(socket: ClientConnection) -> dict[str, Any]:
    with anyio.fail_after(PATIENT_S):
        return json.loads(await socket.recv())


async def say(socket: ClientConnection, **settlement: Any) -> None:
    await socket.send(json.dumps(settlement))


async def publish(events: RunningEvents, topic: str, data: Any) -> None:
    await events.post("publish", {"topic": topic, "data": data})


async def test_events_are_told_over_a_socket_as_cloudevents(events: RunningEvents) -> None:
    async with connecting(events, "topic=ws.told.*&where=subject=s") as socket:
        await publish(events, "ws.told.x", 0)
        await events.post("publish", {"topic": "ws.told.x", "data": {"n": 1}, "subject": "s"})
        told = await next_of(socket)
    assert (told["id"], told["attempt"], told["event"]["type"]) == (1, 1, "ws.told.x")
    assert (told["event"]["data"], told["event"]["specversion"]) == ({"n": 1}, "1.0")
    assert told["offset"] is not None


async def test_a_client_acks_retries_and_rejects(events: RunningEvents) -> None:
    query = "topic=ws.hand&group=hand&ack=manual"
    async with connecting(events, query, access="join") as socket:
        for number in range(3):
            await publish(events, "ws.hand", number)
        first, second, third = [await next_of(socket) for _ in range(3)]
        await say(socket, ack=first["id"])
        await say(socket, reject=second["id"], reason="no such customer")
        await say(socket, retry=third["id"], after="10ms")
        again = await next_of(socket)
        assert (again["event"]["data"], again["attempt"]) == (2, 2)
        assert again["id"] not in (first["id"], second["id"], third["id"])
        await say(socket, ack=again["id"])
        await say(socket, ack=again["id"])
        assert "no event in hand" in (await next_of(socket))["error"]
    letters = await events.get("dead-letters?group=hand")
    assert [(letter["reason"], letter["event"]["data"]) for letter in letters] == [("no such customer", 1)]


async def test_what_was_not_settled_comes_again_to_another(events: RunningEvents) -> None:
    query = "topic=ws.left&group=left&ack=manual"
    async with connecting(events, query, access="join") as socket:
        await publish(events, "ws.left", 1)
        assert (await next_of(socket))["attempt"] == 1
    async with connecting(events, query, access="join") as socket:
        assert (await next_of(socket))["attempt"] == 2


async def test_no_more_is_in_flight_than_was_asked_for(events: RunningEvents) -> None:
    query = "topic=ws.few&group=few&ack=manual&prefetch=2"
    async with connecting(events, query, access="join") as socket:
        for number in range(4):
            await publish(events, "ws.few", number)
        first = await next_of(socket)
        await next_of(socket)
        entry = await events.get("groups/few")
        assert (entry["unsettled"], entry["lag"]) == (2, 2)
        await say(socket, ack=first["id"])
        assert (await next_of(socket))["event"]["data"] == 2


async def test_an_event_that_is_settled_too_late_is_handed_out_again(events: RunningEvents) -> None:
    query = "topic=ws.late&group=late&ack=manual&settle_within=20ms"
    async with connecting(events, query, access="join") as socket:
        await publish(events, "ws.late", 1)
        first, again = await next_of(socket), await next_of(socket)
    assert (first["attempt"], again["attempt"]) == (1, 2)


@pytest.mark.parametrize(
    "frame", ["{", "{}", '{"ack": 1, "retry": 1}', '{"ack": 1, "after": "1s"}', '{"nack": 1}', b"x"]
)
async def test_a_frame_that_says_nothing_closes_the_socket(events: RunningEvents, frame: str | bytes) -> None:
    async with connecting(events, "topic=ws.bad&group=bad&ack=manual", access="join") as socket:
        await socket.send(frame)
        assert (await code_of_end(socket)) == 1007


async def code_of_end(socket: ClientConnection) -> int | None:
    with anyio.fail_after(PATIENT_S), pytest.raises(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 422, "query.topic"),
        ("topic=a..b", 422, "query.topic"),
        ("topic=a&ack=manual", 422, "query"),
        ("topic=a&ack=never", 422, "query.ack"),
        ("topic=a&prefetch=0", 422, "query.prefetch"),
        ("topic=a&group=g", 401, None),
    ],
)
async def test_a_socket_is_refused_with_a_problem(
    events: RunningEvents, query: str, status: int, field: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connecting(events, query):
            pass
    problem = json.loads(refused.value.response.body or b"")
    assert problem["status"] == refused.value.response.status_code == status
    if field is not None:
        assert problem["problems"][0]["field"] == field


async def test_a_page_of_another_site_opens_no_socket_without_a_token(events: RunningEvents) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connecting(events, "topic=a", origin="https://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 403
    own = f"http://127.0.0.1:{events.settings.port}"
    async with connecting(events, "topic=a", origin=own):
        pass
    async with connecting(events, "topic=a", origin="https://elsewhere.example", access="join"):
        pass


async def test_reading_needs_the_admin_token_where_others_can_connect(tmp_path: Path) -> None:
    async with discovery_in(tmp_path) as discovery, events_service(discovery, host="0.0.0.0") as events:
        for access, status in (("", 401), ("join", 403)):
            with pytest.raises(InvalidStatus) as refused:
                async with connecting(events, "topic=a", access=access):
                    pass
            assert refused.value.response.status_code == status
        async with connecting(events, "topic=a", access="admin"):
            pass


async def test_sockets_close_as_going_away_when_the_service_stops(tmp_path: Path) -> None:
    async with discovery_in(tmp_path) as discovery:
        async with events_service(discovery) as events:
            socket = await connecting(events, "topic=%23")
        assert await code_of_end(socket) == 1001

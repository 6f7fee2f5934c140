"""RabbitMQ is killed and comes back under the events service: what becomes of streams, sockets and webhooks."""

import json
import os
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from toska_common.clock import now_utc
from toska_common.events.amqp.transport import open_amqp
from toska_common.events.event import Event
from toska_common.events.transport import Message
from toska_tests.control import web_server
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.event_streams import Reader, reading
from toska_tests.rabbit_servers import RabbitServer
from toska_tests.waiting import PATIENT_S, wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

TOPIC = "broken.a"


class Hook:
    """A receiver of a webhook; while the gate is shut, it keeps those waiting who bring events, and then refuses."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.taken: list[int] = []
        self.ids: dict[int, set[str]] = {}
        self.gate = anyio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number = json.loads(await request.read())["data"]
        self.came.append(number)
        self.ids.setdefault(number, set()).add(request.headers["webhook-id"])
        if not self.gate.is_set():
            await self.gate.wait()
            if number == 1:
                return web.Response(status=500)
        self.taken.append(number)
        return web.Response(status=204)


class Outage:
    """An events service over a RabbitMQ of many tests, in a namespace of its own."""

    def __init__(self, rabbit: RabbitServer, namespace: str, events: RunningEvents) -> None:
        self.rabbit = rabbit
        self.events = events
        self._url = f"{rabbit.url}?namespace={namespace}"

    async def publish(self, *numbers: int) -> None:
        """Publish as another process would, which is not in the events service's way back."""
        async with open_amqp(self._url) as transport:
            for number in numbers:
                await transport.publish([Message(_event(number))])

    def socket(self, **parameters: str) -> connect:
        """A WebSocket with the join token."""
        query = "&".join(f"{name}={value}" for name, value in {"topic": TOPIC, **parameters}.items())
        url = f"{self.events.url.replace('http', 'ws', 1)}/ws?{query}"
        return connect(url, additional_headers=self.events.bearer("join"))


def _event(number: int) -> Event:
    return Event(topic=TOPIC, source="/tests", id=f"e{number}", time=now_utc(), data=b"%d" % number)


@pytest.fixture
async def outage(rabbit: RabbitServer, tmp_path: Path) -> AsyncGenerator[Outage]:
    await rabbit.wait_until_ready()
    namespace = f"t{os.urandom(4).hex()}"
    url = f"{rabbit.url}?namespace={namespace}"
    async with (
        discovery_in(tmp_path) as discovery,
        events_service(discovery, events_url=url, stream_heartbeat="50ms") as events,
    ):
        yield Outage(rabbit, namespace, events)


async def told(socket: ClientConnection) -> dict[str, Any]:
    with anyio.fail_after(3 * PATIENT_S):
        return json.loads(await socket.recv())


async def numbers(reader: Reader, count: int) -> list[int]:
    return [await reader.data() for _ in range(count)]


async def test_streams_sockets_and_webhooks_outlive_a_kill_of_rabbitmq_and_lose_nothing(outage: Outage) -> None:
    hook, events = Hook(), outage.events
    async with web_server(hook.handle) as port:
        url = f"http://127.0.0.1:{port}/"
        await events.post("subscribe", {"topics": [TOPIC], "url": url, "retrying": {"first": "10ms"}})
        async with (
            reading(events, f"topic={TOPIC}") as reader,
            outage.socket(group="broken", ack="manual") as socket,
        ):
            await outage.publish(0, 1)
            assert await numbers(reader, 2) == [0, 1]
            first, second = await told(socket), await told(socket)
            await wait_until(lambda: sorted(hook.came) == [0, 1], what="both at the webhook")
            outage.rabbit.settle()
            outage.rabbit.freeze()
            await socket.send(json.dumps({"reject": second["id"]}))
            await (await socket.ping())  # the rejection is there, and waits for RabbitMQ
            outage.rabbit.kill()
            assert "what carries events is away" in (await told(socket))["error"]
            await _is_away(outage)
            hook.gate.set()  # what was under way is answered while nobody can be told of it
            await wait_until(lambda: 0 in hook.taken)
            await socket.send(json.dumps({"ack": first["id"]}))
            await outage.rabbit.start()
            await outage.publish(2, 3)
            assert await numbers(reader, 2) == [2, 3]
            await _comes_again(socket, first, second)
        await wait_until(lambda: set(hook.taken) == {0, 1, 2, 3}, within=3 * PATIENT_S, what="all at the webhook")
        assert all(len(ids) == 1 for ids in hook.ids.values())


async def _is_away(outage: Outage) -> None:
    """What those are told who come while RabbitMQ is away."""
    events = outage.events

    async def ask(method: str, path: str, **body: Any) -> None:
        answer = await events.ask(method, path, timeout=PATIENT_S, **body)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/events-unavailable"), answer.text

    async with anyio.create_task_group() as tasks:  # each says so after some seconds
        tasks.start_soon(ask, "GET", "groups")
        tasks.start_soon(partial(ask, "POST", "publish", json={"topic": TOPIC, "data": 9}))
    with pytest.raises(InvalidStatus) as refused:
        async with outage.socket():
            pass
    assert refused.value.response.status_code == 503
    async with events.http.stream("GET", f"{events.url}/stream?topic={TOPIC}", timeout=PATIENT_S) as stream:
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        with anyio.fail_after(PATIENT_S):
            while await anext(lines) != ": what carries events is away":
                pass


async def _comes_again(socket: ClientConnection, *in_hand: dict[str, Any]) -> None:
    """What a client had in hand, and what was published since."""
    seen: dict[int, int] = {}
    while set(seen) != {0, 1, 2, 3}:
        frame = await told(socket)
        seen[frame["event"]["data"]] = frame["attempt"]
        assert frame["id"] not in {one["id"] for one in in_hand}
        await socket.send(json.dumps({"ack": frame["id"]}))
    assert seen == {0: 2, 1: 2, 2: 1, 3: 1}


async def test_over_rabbitmq_a_reader_goes_on_by_a_moment_where_its_stream_broke(outage: Outage) -> None:
    async with reading(outage.events, f"topic={TOPIC}") as reader:
        ready = reader.last_id
        await outage.publish(0)
        one = await reader.next()
    assert ready.startswith("~")
    assert one["id"].startswith("~")
    await outage.publish(1)
    for last in (ready, one["id"]):
        async with reading(outage.events, f"topic={TOPIC}", last=last) as reader:
            # What was a moment before that comes again; the id of the event tells.
            assert await numbers(reader, 2) == [0, 1]
            await outage.publish(2 if last == ready else 3)
            assert await numbers(reader, 1) == [2] if last == ready else [2, 3]


async def test_an_id_that_is_no_moment_is_refused(outage: Outage) -> None:
    for last in ("~", "~x", "~-1", "~99999999999999999"):
        answer = await outage.events.ask("GET", "stream?topic=a", headers={"last-event-id": last})
        assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "header.last-event-id")

"""The same API where RabbitMQ carries events: streams, sockets and webhooks."""

import json
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web
from toska_tests.control import web_server
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import events_service
from toska_tests.rabbit_servers import RabbitServer
from toska_tests.waiting import PATIENT_S, wait_until
from websockets.asyncio.client import connect


async def test_streams_sockets_and_webhooks_work_over_rabbitmq(rabbit: RabbitServer, tmp_path: Path) -> None:
    await rabbit.wait_until_ready()
    posted: list[Any] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        posted.append(json.loads(await request.read())["data"])
        return web.Response(status=204)

    async with (
        web_server(take) as port,
        discovery_in(tmp_path) as discovery,
        events_service(discovery, events_url=rabbit.url) as events,
    ):
        topic, group = "apirabbit.streamed", "apirabbit"
        made = await events.post("subscribe", {"topics": [topic], "url": f"http://127.0.0.1:{port}/"})
        socket_url = f"{events.url.replace('http', 'ws', 1)}/ws?topic={topic}&group={group}&ack=manual"
        with anyio.fail_after(PATIENT_S):
            async with (
                events.http.stream("GET", f"{events.url}/stream?topic={topic}", timeout=PATIENT_S) as answer,
                connect(socket_url, additional_headers=events.bearer("join")) as socket,
            ):
                lines = answer.aiter_lines()
                while await anext(lines) != "event: ready":
                    pass
                await events.post("publish", {"topic": topic, "data": 7})
                first = json.loads(await socket.recv())
                assert (first["event"]["data"], first["attempt"]) == (7, 1)
                await socket.send(json.dumps({"retry": first["id"], "after": "1ms"}))
                again = json.loads(await socket.recv())
                assert (again["event"]["id"], again["attempt"]) == (first["event"]["id"], 2)
                await socket.send(json.dumps({"ack": again["id"]}))
                while True:
                    name, _, value = (await anext(lines)).partition(": ")
                    if name == "data" and value != "{}":
                        break
                assert json.loads(value)["data"] == 7
        await wait_until(lambda: posted == [7], within=PATIENT_S)
        assert (await events.ask("DELETE", f"subscriptions/{made['id']}")).status_code == 204

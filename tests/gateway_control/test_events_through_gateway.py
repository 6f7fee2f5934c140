"""The events service's API at the gateway's address: requests, streams and WebSockets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from toska_tests.control import control_mesh
from toska_tests.waiting import PATIENT_S
from websockets.asyncio.client import connect
from websockets.typing import Origin


async def test_events_are_published_streamed_and_told_over_sockets_through_the_gateway(home: Path) -> None:
    async with control_mesh(home, "discovery", "router", "events", "gateway") as mesh:
        url = f"{mesh.data}/api/v1/events"
        await mesh.until_answered(f"{url}/topics")
        with anyio.fail_after(PATIENT_S):
            async with (
                mesh.http.stream("GET", f"{url}/stream?topic=through.%23", timeout=PATIENT_S) as answer,
                connect(f"{url.replace('http', 'ws', 1)}/ws?topic=through.%23", origin=Origin(mesh.data)) as socket,
            ):
                lines = answer.aiter_lines()
                while await anext(lines) != "event: ready":
                    pass
                body = {"topic": "through.x", "data": 7}
                published = await mesh.http.post(f"{url}/publish", json=body, headers=mesh.bearer("join"))
                assert published.status_code == 201
                assert json.loads(await socket.recv())["event"]["data"] == 7
                events = [line async for line in _data(lines, 2)]
    assert json.loads(events[1])["data"] == 7


async def _data(lines: AsyncIterator[str], most: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
            most -= 1
        if not most:
            return

"""Stopping: what is in flight ends well, what would never end is ended, and nothing waits for ever."""

import signal

import anyio
import httpx
import pytest
import websockets
from toska_tests.clients import http_client
from toska_tests.joined import Stage
from toska_tests.waiting import wait_until


async def test_streams_end_and_requests_are_finished_when_the_app_stops(stage: Stage) -> None:
    with stage.serve("stopping") as shop:
        await stage.registry.wait_for("stopping", 1)
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await shop.get("/slow?seconds=1.5"))

        async with (
            http_client() as client,
            client.stream("GET", f"{shop.url}/events") as events,
            websockets.connect(f"ws://127.0.0.1:{shop.port}/echo") as socket,
            anyio.create_task_group() as group,
        ):
            chunks = events.aiter_text()
            assert (await anext(chunks)).startswith("data:")
            assert await socket.recv() == "hello"
            group.start_soon(ask)
            await wait_until(lambda: _in_flight(shop.url, 2), what="the stream and the request are being served")
            shop.program.send(signal.SIGTERM)
            # A clean end and no broken connection: clients of event streams then connect again, to somebody else.
            assert [chunk async for chunk in chunks] == []
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert [answer.status_code for answer in answers] == [200]
        assert await shop.program.exit_code() == -signal.SIGTERM
        assert "request_crashed" not in shop.program.stderr


async def test_request_that_outlasts_the_grace_is_answered_with_503(stage: Stage) -> None:
    with stage.serve("impatient", environment={"TOSKA_SHUTDOWN_GRACE": "300ms"}) as shop:
        await stage.registry.wait_for("impatient", 1)
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await shop.get("/slow?seconds=60"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await wait_until(lambda: _in_flight(shop.url, 1), what="the request is being served")
            shop.program.send(signal.SIGTERM)
        [answer] = answers
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        await shop.program.exit_code()


async def test_stopping_is_bounded_when_the_registry_hangs(stage: Stage) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
    async with listener:  # accepts, by its backlog, and never answers
        with stage.serve("hanging", environment={"TOSKA_REGISTRY_URL": f"http://127.0.0.1:{port}"}) as shop:
            await wait_until(lambda: "Uvicorn running" in shop.program.stderr, what="it serves")
            assert (await shop.get("/server")).status_code == 200
            shop.program.send(signal.SIGTERM)
            assert await shop.program.exit_code(within=20) == -signal.SIGTERM


async def _in_flight(url: str, count: int) -> bool:
    async with http_client() as client:
        metrics = (await client.get(f"{url}/metrics")).text
    return f"toska_http_requests_in_flight {count}.0" in metrics

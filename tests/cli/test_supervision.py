"""A service of the all-in-one host: restarted alone, on sockets that stay open."""

import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from toska_cli.supervision import HostedService
from toska_common.server import Listener, Service, bind
from toska_tests.clients import http_client
from toska_tests.waiting import wait_until


class _Flaky:
    """Builds a service that answers which life it is in, and that can be made to crash or not to start."""

    def __init__(self) -> None:
        self.lives = 0
        self.current: Service | None = None
        self.closed: list[int] = []
        self.refuses_to_start = False

    def build(self) -> Service:
        self.lives += 1
        life = self.lives

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse(f"life {life}")(scope, receive, send)

        @asynccontextmanager
        async def lifespan() -> AsyncGenerator[None]:
            if self.refuses_to_start:
                raise RuntimeError("no disk")
            try:
                yield
            finally:
                self.closed.append(life)

        self.current = Service("flaky", [Listener("http", "127.0.0.1", 0, app)], lifespan)
        return self.current

    def crash(self) -> None:
        assert self.current is not None
        self.current.on_crash(RuntimeError("a background task died"))


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with bind("127.0.0.1", 0) as bound:
        yield bound


def _url(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


async def test_a_crashed_service_comes_back_on_the_same_port(sock: socket.socket) -> None:
    flaky, crashes = _Flaky(), list[str]()
    hosted = HostedService(
        flaky.build(), flaky.build, {"http": sock}, on_restart=lambda name, error, _: crashes.append(f"{name}: {error}")
    )
    async with anyio.create_task_group() as group, http_client() as client:
        await group.start(hosted.run)
        assert hosted.state == "ready"
        assert (await client.get(_url(sock))).text == "life 1"
        flaky.crash()
        await wait_until(lambda: flaky.lives == 2 and hosted.state == "ready", what="a second life")
        assert (await client.get(_url(sock))).text == "life 2"
        hosted.stop()
        await hosted.wait_ended()
    assert crashes == ["flaky: a background task died"]
    assert flaky.closed == [1, 2]
    assert hosted.state == "stopped"


async def test_callers_wait_while_the_service_is_away(sock: socket.socket) -> None:
    flaky = _Flaky()
    hosted = HostedService(flaky.build(), flaky.build, {"http": sock})
    async with anyio.create_task_group() as group, http_client() as client:
        await group.start(hosted.run)
        flaky.crash()
        await wait_until(lambda: hosted.state == "restarting", what="the crash to be seen")
        assert (await client.get(_url(sock))).text == "life 2"
        hosted.stop()


async def test_a_service_that_cannot_start_says_why_instead_of_being_tried_for_ever(sock: socket.socket) -> None:
    flaky = _Flaky()
    flaky.refuses_to_start = True
    hosted = HostedService(flaky.build(), flaky.build, {"http": sock})
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="no disk")):
        async with anyio.create_task_group() as group:
            await group.start(hosted.run)
    assert flaky.lives == 1


async def test_stopping_a_service_that_never_ran_is_no_error(sock: socket.socket) -> None:
    flaky = _Flaky()
    hosted = HostedService(flaky.build(), flaky.build, {"http": sock})
    hosted.stop()
    with anyio.fail_after(20):
        await hosted.wait_ended()

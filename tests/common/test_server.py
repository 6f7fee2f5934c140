"""Running a service: everything opens and closes in order, whoever stops it and whenever."""

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from toska_common.errors import ConfigurationError
from toska_common.server import Listener, Service, bind, run_process, serve
from toska_common.tasks import supervised_tasks
from toska_tests.clients import http_client


class Recorded:
    """A service that writes down what happens to it, and whose one background task works to the end."""

    def __init__(self, background: Callable[[], Awaitable[None]] | None = None) -> None:
        self.events: list[str] = []
        self.asked = anyio.Event()
        self.answer = anyio.Event()
        self._background = background or anyio.sleep_forever
        app = Starlette(routes=[Route("/slow", self._slow)])
        self.service = Service("recorded", [Listener("http", "127.0.0.1", 0, app)], self._lifespan)
        self.service.announce = self._announce
        self.service.withdraw = self._withdraw

    async def _slow(self, _: Request) -> PlainTextResponse:
        self.asked.set()
        await self.answer.wait()
        return PlainTextResponse("done")

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        self.events.append("opened")
        async with supervised_tasks(on_crash=self.service.on_crash) as tasks:
            tasks.start_soon(self._work)
            yield
        self.events.append("closed")

    async def _work(self) -> None:
        try:
            await self._background()
        finally:
            self.events.append("background ended")

    async def _announce(self) -> None:
        self.events.append(f"announced, ready={self.service.ready}")

    async def _withdraw(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.events.append(f"withdrawn, ready={self.service.ready}")

    async def run(self, *, task_status: TaskStatus[int]) -> None:
        """Serve on a free port, which `task_status` is told."""
        with bind("127.0.0.1", 0) as sock:
            async with anyio.create_task_group() as group:
                await group.start(serve, self.service, {"http": sock})
                task_status.started(sock.getsockname()[1])


async def test_what_runs_in_the_background_goes_on_until_the_listeners_are_closed() -> None:
    recorded = Recorded()
    async with anyio.create_task_group() as group:
        await group.start(recorded.run)
        group.cancel_scope.cancel()
    assert recorded.events == [
        "opened",
        "announced, ready=True",
        "withdrawn, ready=False",
        "background ended",
        "closed",
    ]


async def test_a_request_in_flight_is_answered_after_the_stop_began() -> None:
    recorded = Recorded()
    answers: list[str] = []
    async with http_client() as client, anyio.create_task_group() as clients, anyio.create_task_group() as group:
        port = await group.start(recorded.run)

        async def ask() -> None:
            answers.append((await client.get(f"http://127.0.0.1:{port}/slow")).text)

        clients.start_soon(ask)
        await recorded.asked.wait()
        group.cancel_scope.cancel()
        recorded.answer.set()
    assert answers == ["done"]


async def test_a_background_task_that_dies_stops_the_service_with_its_error() -> None:
    async def die() -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError("lost")

    recorded = Recorded(die)
    with bind("127.0.0.1", 0) as sock, anyio.fail_after(20), pytest.raises(LookupError, match="lost"):
        await serve(recorded.service, {"http": sock})
    assert not recorded.service.ready


async def test_a_service_that_is_still_opening_is_given_up() -> None:
    opened = anyio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        opened.set()
        await anyio.sleep_forever()
        yield

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            sockets: dict[str, socket.socket] = {}
            group.start_soon(serve, Service("stuck", [], lifespan), sockets)
            await opened.wait()
            group.cancel_scope.cancel()


async def test_a_wrong_setting_that_a_part_finds_while_opening_is_named_plainly() -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with supervised_tasks(on_crash=lambda _: None):
            raise ConfigurationError("TOSKA_X: is wrong")
            yield

    with pytest.raises(ConfigurationError, match="TOSKA_X: is wrong"):
        await run_process(Service("wrong", [], lifespan))

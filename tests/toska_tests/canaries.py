"""A gateway that follows a router, and two versions of an app behind it that a test lets fail."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import aiohttp
import anyio
from toska_gateway.envoy.plane import EnvoyDataPlane
from toska_gateway.follower import SnapshotFollower
from toska_gateway.listeners import parse_listener
from toska_gateway.routing import Routing
from toska_gateway.settings import Settings
from toska_gateway.supervisor import Supervisor
from toska_gateway.system_routes import build_system_routes

from toska_tests.gateways import cluster
from toska_tests.raw_http import Conversation, Upstream, ask, get, response, upstream
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until

GatewayEngine = Literal["python", "envoy"]
ROUTE = {"match": {"path_prefix": "/"}, "to": "old"}
ROLLOUT: Mapping[str, Any] = {
    "route": "pay",
    "baseline": "old",
    "canary": "new",
    "steps": [50, 100],
    "hold": "300ms",
    "min_requests": 20,
    "checks": {"latency": []},
}
"""Fast, and without limits to latency, which a busy machine has a will of its own about."""


PATIENCE = 30.0


async def until_phase(router: RunningRouter, run: str, phase: str) -> dict[str, Any]:
    """Wait until `rollouts/NAME` or `experiments/NAME` is in a phase; returns its status in it."""
    status: dict[str, Any] = {}

    async def is_there() -> bool:
        nonlocal status
        status = await status_of(router, run)
        return status["phase"] == phase

    await wait_until(is_there, within=PATIENCE, what=f"{run} is {phase}")
    return status


async def status_of(router: RunningRouter, run: str) -> dict[str, Any]:
    """How a rollout or an experiment is."""
    return (await router.read(run))["status"]


class Version:
    """A version of the app; every answer is `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.server: Upstream | None = None

    @property
    def requests(self) -> int:
        """How many it has had."""
        return 0 if self.server is None else len(self.server.requests)

    async def script(self, conversation: Conversation) -> None:
        """What it says to a connection."""
        while True:
            await conversation.request()
            await conversation.send(response(self.status, body=b"ok"))


class Shop:
    """The versions `old` and `new`, and clients that come all the time."""

    def __init__(self, address: tuple[str, int], old: Version, new: Version) -> None:
        self.address = address
        self.old = old
        self.new = new
        self.statuses: list[int] = []

    async def come(self) -> None:
        """Clients, for ever."""
        while True:
            for answer in await asyncio.gather(*(ask(self.address, get()) for _ in range(5))):
                self.statuses.append(answer.status)
            await anyio.sleep(0.02)


def _envoy(home: Path) -> EnvoyDataPlane:
    return EnvoyDataPlane([parse_listener("127.0.0.1:0")], 1, tls_folder=home, drain_s=5)


@asynccontextmanager
async def following(
    home: Path, url: str, name: str = "gateway-1", *, engine: GatewayEngine = "python"
) -> AsyncGenerator[Supervisor | EnvoyDataPlane]:
    """A gateway of one worker, or thread of Envoy, that follows the router at `url`."""
    supervisor = Supervisor("127.0.0.1", 0, 1) if engine == "python" else _envoy(home)
    token = (home / "admin.token").read_text().strip()
    async with supervisor.run(), aiohttp.ClientSession() as session, anyio.create_task_group() as group:
        routing = Routing(supervisor, build_system_routes(Settings(home=home)))
        follower = SnapshotFollower(session, url, token, name, routing, wait=timedelta(seconds=5))
        group.start_soon(follower.run)
        await wait_until(lambda: routing.current is not None, within=20, what="the gateway has a snapshot")
        yield supervisor
        group.cancel_scope.cancel()


@asynccontextmanager
async def open_shop(router: RunningRouter, home: Path, *, engine: GatewayEngine = "python") -> AsyncGenerator[Shop]:
    """Versions, their clusters, the route `pay` to the old one, a gateway, and clients."""
    old, new = Version(), Version()
    async with upstream(old.script) as old_server, upstream(new.script) as new_server:
        old.server, new.server = old_server, new_server
        for name, server in (("old", old_server), ("new", new_server)):
            (await router.put(f"clusters/{name}", cluster(server.port))).raise_for_status()
        (await router.put("routes/pay", ROUTE)).raise_for_status()
        async with (
            following(home, str(router.http.base_url), engine=engine) as gateway,
            anyio.create_task_group() as group,
        ):
            shop = Shop(gateway.address, old, new)
            group.start_soon(shop.come)
            with contextlib.ExitStack() as stack:
                stack.callback(group.cancel_scope.cancel)
                yield shop

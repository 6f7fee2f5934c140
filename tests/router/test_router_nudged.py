"""The router while the registry does not answer: when it asks again is for its pause to say, which events cut short."""

import anyio
from aiohttp import web
from toska_common.clients.consul import ConsulClient
from toska_common.clock import SystemClock
from toska_router.follower import RegistryFollower
from toska_router.instances import Instances
from toska_tests.control import web_server
from toska_tests.waiting import wait_until


class Registry:
    """Speaks as much of Consul's API as tells of one service, unless it is away."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.is_away:
            return web.Response(status=500)
        if int(request.query.get("index", "0")):
            await anyio.sleep_forever()
        found: object = {"orders": []} if request.path.endswith("/services") else []
        return web.json_response(found, headers={"x-consul-index": "7"})


async def test_the_registry_is_asked_again_when_the_pause_ends_and_all_services_are_followed() -> None:
    registry, pauses, nudged = Registry(), list[float](), anyio.Event()

    async def until_nudged(seconds: float) -> None:
        pauses.append(seconds)
        await nudged.wait()

    follower = RegistryFollower(
        Instances(0.0),
        wanted=lambda: (),
        on_change=lambda: None,
        on_complete=lambda: None,
        clock=SystemClock(),
    )
    follower.sleep = until_nudged
    async with (
        web_server(registry.answer) as port,
        ConsulClient.open(f"http://127.0.0.1:{port}") as consul,
        anyio.create_task_group() as group,
    ):
        group.start_soon(follower.run, consul)
        await wait_until(lambda: len(pauses) == 1, what="a first query in vain")
        assert len(registry.asked) == 1
        registry.is_away = False
        nudged.set()
        await wait_until(lambda: follower.complete, what="every service was seen")
        group.cancel_scope.cancel()
    assert registry.asked[1] == "/v1/catalog/services"

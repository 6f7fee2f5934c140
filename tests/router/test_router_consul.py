"""What only a real Consul does: it lists what nobody can connect to, and a restart in development loses everything."""

from collections.abc import Callable
from pathlib import Path

from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.contracts.discovery import META_EXPOSE
from toska_tests.registries import consul_agent
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until

MakeInstance = Callable[..., ServiceRegistration]

EXPOSED = {META_EXPOSE: "true"}


async def test_an_instance_that_nobody_can_connect_to_is_left_out(
    router: RunningRouter, consul: ConsulClient, instance: MakeInstance
) -> None:
    await consul.register_service(instance("orders", 0, meta=EXPOSED))
    await consul.register_service(instance("orders", 9001, address="not an address", meta=EXPOSED))
    await consul.register_service(instance("orders", 9002, meta=EXPOSED))
    await router.wait_for_endpoints("orders", "orders-9002")


async def test_a_registry_that_comes_back_without_its_memory_takes_nothing_away_for_a_while(
    start_router: StartRouter, instance: MakeInstance, tmp_path: Path
) -> None:
    with consul_agent(tmp_path) as forgetful:
        await forgetful.wait_until_ready()
        async with ConsulClient.open(forgetful.url) as client:
            await client.register_service(instance("orders", 9001, meta=EXPOSED))
            await client.register_service(instance("orders", 9002, meta=EXPOSED))
            async with start_router(registry_url=forgetful.url, registry_grace="5s") as router:
                before = await router.wait_for_endpoints("orders", "orders-9001", "orders-9002")
                forgetful.stop()
                forgetful.start()
                await wait_until(lambda: _is_connected(router, expected=False), what="the router notices")
                await forgetful.wait_until_ready()
                await wait_until(lambda: _is_connected(router, expected=True), what="the registry is back")
                assert await router.snapshot() == before
                await client.register_service(instance("orders", 9001, meta=EXPOSED))
                await router.wait_for_endpoints("orders", "orders-9001")
                assert [route.name for route in (await router.snapshot()).table.routes] == ["auto:orders"]


async def _is_connected(router: RunningRouter, *, expected: bool) -> bool:
    return (await router.read("status"))["registry"]["connected"] is expected

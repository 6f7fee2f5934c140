"""Our client of Consul's API: what it calls, what it makes of answers, and how it sits out what goes wrong."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from aiohttp import web
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.discovery import Health
from toska_common.errors import (
    CallerError,
    Forbidden,
    NotFound,
    Unauthenticated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from toska_tests.discovery_rig import RunningRegistry
from toska_tests.ports import free_port
from toska_tests.registries import wire_to
from toska_tests.waiting import wait_until

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncGenerator[str]:
    """A server that answers everything by `handler`; yields its URL."""

    async def handle(request: web.Request) -> web.Response:
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_a_registration_comes_back_as_it_was_given(consul: ConsulClient, name: str) -> None:
    check = TTLCheck(timedelta(seconds=20), notes="n", deregister_after=timedelta(minutes=2))
    registration = ServiceRegistration(
        name, f"{name}:1", "127.0.0.3", 9001, ("a", "b"), {"zone": "x"}, weight=7, checks=(check,)
    )
    await consul.register_service(registration)
    found = await consul.agent_service(f"{name}:1")
    assert (found.id, found.service, found.address, found.port) == (f"{name}:1", name, "127.0.0.3", 9001)
    assert (found.tags, found.meta, found.weight) == (("a", "b"), {"zone": "x"}, 7)
    assert (await consul.agent_services())[f"{name}:1"] == found
    assert (await consul.agent_checks())[f"service:{name}:1"].status is Health.PASSING

    async def is_listed() -> bool:
        return bool((await consul.health_service(name, passing=True, tags=["a", "b"]))[0])

    await wait_until(is_listed)
    ((entry,), _) = await consul.health_service(name)
    assert (entry.address, entry.service.port, entry.health) == ("127.0.0.3", 9001, Health.PASSING)
    ((item,), _) = await consul.catalog_service(name)
    assert (item.address, item.service.id, item.node.name) == ("127.0.0.3", f"{name}:1", entry.node.name)
    assert name in (await consul.catalog_services())[0]


async def test_an_instance_without_an_address_is_at_its_nodes(consul: ConsulClient, name: str) -> None:
    await consul.register_service(ServiceRegistration(name, port=9002))

    async def is_listed() -> bool:
        return [entry.address for entry in (await consul.health_service(name))[0]] == ["127.0.0.1"]

    await wait_until(is_listed)
    assert [item.address for item in (await consul.catalog_service(name))[0]] == ["127.0.0.1"]


async def test_reports_are_told_apart_and_may_be_long(consul: ConsulClient, name: str) -> None:
    await consul.register_service(ServiceRegistration(name, checks=(TTLCheck(timedelta(seconds=20)),)))
    check_id = f"service:{name}"

    async def status() -> tuple[Health, str]:
        check = (await consul.agent_checks())[check_id]
        return check.status, check.output

    await consul.warn_check(check_id, "slow & old")
    assert await status() == (Health.WARNING, "slow & old")
    await consul.fail_check(check_id)
    assert (await status())[0] is Health.CRITICAL
    await consul.pass_check(check_id)
    assert (await status())[0] is Health.PASSING
    await consul.update_check(check_id, Health.WARNING, "long " * 500)
    assert await status() == (Health.WARNING, "long " * 500)


async def test_a_report_on_a_forgotten_check_is_not_found(consul: ConsulClient) -> None:
    for report in (consul.pass_check, consul.warn_check, consul.fail_check):
        with pytest.raises(NotFound):
            await report("service:forgotten")
    with pytest.raises(NotFound):
        await consul.update_check("service:forgotten", Health.PASSING)


async def test_deregistering_what_is_not_there_is_fine_and_reading_it_is_not_found(consul: ConsulClient) -> None:
    await consul.deregister_service("nobody")
    with pytest.raises(NotFound):
        await consul.agent_service("nobody")


async def test_the_agent_and_its_leader_are_told(consul: ConsulClient) -> None:
    about = await consul.agent_self()
    assert (about.datacenter, about.version, about.server) == ("dc1", "1.8.7", True)
    assert (await consul.leader()).startswith("127.0.0.1:")
    checks, index = await consul.health_state(Health.PASSING)
    assert "serfHealth" in {check.id for check in checks}
    assert index >= 1


async def test_nobody_there_is_unavailable() -> None:
    async with ConsulClient.open(f"http://127.0.0.1:{free_port()}") as consul:
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            await consul.leader()


async def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    async def hang(_: web.Request) -> web.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async with answering(hang) as url, ConsulClient.open(url, call_timeout=timedelta(milliseconds=50)) as consul:
        with pytest.raises(UpstreamTimeout):
            await consul.leader()


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (400, "Invalid check", CallerError),
        (403, "ACL not found", Unauthenticated),
        (403, "Permission denied", Forbidden),
        (404, "unknown service ID: x", NotFound),
        (404, 'Unknown check ID "x"', NotFound),
        (429, "Your IP is issuing too many concurrent connections", UpstreamUnavailable),
        (500, "No cluster leader", UpstreamUnavailable),
        (500, "rpc error making call: boom", UpstreamError),
        (503, "stopping", UpstreamUnavailable),
        (200, "<html>not Consul</html>", UpstreamError),
    ],
)
async def test_each_refusal_is_an_error_of_its_kind(status: int, text: str, error: type[Exception]) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with answering(refuse) as url, ConsulClient.open(url, token="t") as consul:
        with pytest.raises(error) as caught:
            await consul.agent_self()
    assert type(caught.value) is error


async def test_a_refusal_without_a_token_asks_for_one() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=403, text="Permission denied")

    async with answering(refuse) as url, ConsulClient.open(url) as consul:
        with pytest.raises(Unauthenticated):
            await consul.kv_put("a", b"1")


async def test_the_token_goes_with_every_call_and_nowhere_else() -> None:
    tokens: list[str | None] = []

    async def note(request: web.Request) -> web.Response:
        tokens.append(request.headers.get("x-consul-token"))
        return web.Response(status=301, headers={"location": "http://127.0.0.1:1/elsewhere"})

    async with answering(note) as url, ConsulClient.open(url, token="secret") as consul:
        with pytest.raises(CallerError):
            await consul.kv_put("a", b"1")
    assert tokens == ["secret"]


class Script:
    """Answers blocking queries on a service with one index after another, and notes what was asked; fails at `None`."""

    def __init__(self, *indexes: int | None) -> None:
        self.asked: list[int] = []
        self._indexes = [*indexes]

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(int(request.query.get("index", "0")))
        if not self._indexes:
            await anyio.sleep_forever()
        index = self._indexes.pop(0)
        if index is None:
            return web.Response(status=500, text="rpc error making call: boom")
        entry: dict[str, Any] = {
            "Node": {"Node": "n", "Address": "127.0.0.1"},
            "Service": {"ID": f"at-{index}", "Service": "orders"},
            "Checks": [],
        }
        return web.json_response([entry], headers={"x-consul-index": str(index)})


async def watch_until(script: Script, count: int) -> None:
    async with (
        answering(script) as url,
        ConsulClient.open(url) as consul,
        aclosing(consul.watch_health("orders")) as watch,
        anyio.create_task_group() as group,
    ):

        async def drain() -> None:
            async for _ in watch:
                pass

        group.start_soon(drain)
        await wait_until(lambda: len(script.asked) == count)
        group.cancel_scope.cancel()


async def test_a_watch_asks_for_what_is_newer_than_what_it_has() -> None:
    script = Script(5, 8, 9)
    await watch_until(script, 4)
    assert script.asked == [0, 5, 8, 9]


async def test_an_index_that_goes_back_starts_the_watch_anew() -> None:
    script = Script(50, 7, 8)
    await watch_until(script, 4)
    assert script.asked == [0, 50, 0, 8]


async def test_an_index_below_one_does_not_make_the_watch_spin() -> None:
    script = Script(0)
    await watch_until(script, 2)
    assert script.asked == [0, 1]


async def test_after_a_failure_a_watch_starts_anew_since_the_registry_may_have_lost_its_memory() -> None:
    script = Script(5, None, 5)
    await watch_until(script, 4)
    assert script.asked == [0, 5, 0, 5]


async def test_a_watch_survives_a_registry_that_goes_away_and_tells_what_changed_meanwhile(
    consul: ConsulClient, registry: RunningRegistry, name: str
) -> None:
    await consul.kv_put(f"{name}/a", b"1")
    seen: list[list[str]] = []
    async with (
        wire_to(registry.url) as wire,
        ConsulClient.open(wire.url) as cut_off,
        aclosing(cut_off.watch_keys(f"{name}/")) as watch,
        anyio.create_task_group() as group,
    ):

        async def follow() -> None:
            async for pairs in watch:
                seen.extend([[pair.key for pair in pairs]])

        group.start_soon(follow)
        await wait_until(lambda: len(seen) == 1)
        await wire.cut()
        await consul.kv_put(f"{name}/b", b"2")
        wire.mend()
        await wait_until(lambda: len(seen) == 2)
        group.cancel_scope.cancel()
    assert seen == [[f"{name}/a"], [f"{name}/a", f"{name}/b"]]


async def test_amending_an_instance_changes_its_metadata_and_nothing_else(consul: ConsulClient, name: str) -> None:
    registration = ServiceRegistration(
        name,
        address="127.0.0.1",
        port=free_port(),
        tags=("a", "b"),
        meta={"x": "1"},
        weight=7,
        checks=(TTLCheck(timedelta(seconds=30)),),
    )
    await consul.register_service(registration)
    await consul.warn_check(f"service:{name}", "slow")
    assert await consul.amend_service(name, lambda meta: {**meta, "y": "2"}) == {"x": "1", "y": "2"}
    instance = await consul.agent_service(name)
    assert (instance.tags, instance.weight, instance.port) == (registration.tags, 7, registration.port)
    assert instance.meta == {"x": "1", "y": "2"}
    check = (await consul.agent_checks())[f"service:{name}"]
    assert (check.status, check.output) == (Health.WARNING, "slow")
    with pytest.raises(NotFound):
        await consul.amend_service("nobody", lambda meta: meta)
    await consul.deregister_service(name)

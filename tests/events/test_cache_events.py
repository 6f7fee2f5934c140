"""Responses that services say are out of date: every worker of every gateway hears of it, over any transport."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from structlog.testing import capture_logs
from toska_common.contracts.events import MAX_OUTDATED, ResponsesOutdated
from toska_common.events import EventBus, Message
from toska_gateway.outdated import EVERY_S, MOST_NAMES, OutdatedResponses
from toska_tests.cached import FRESH, cached, numbered
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.event_carriers import Carrier, LogHost, log_host
from toska_tests.gateways import Gateway, running_gateway
from toska_tests.rabbit_rigs import Rig
from toska_tests.raw_http import Upstream, ask, get, upstream
from toska_tests.waiting import PATIENT_S, wait_until
from toska_tests.wires import wire_to

Ended = Mapping[str, Sequence[str]]


@asynccontextmanager
async def listening(gateway: Gateway, connect: Any) -> AsyncGenerator[None]:
    """Have a gateway hear what is out of date."""
    bus = EventBus("toska-gateway", connect)
    outdated = OutdatedResponses(bus)
    async with bus.open(), anyio.create_task_group() as group:
        with anyio.fail_after(PATIENT_S):
            await bus.subscribed()
        group.start_soon(outdated.run, gateway.supervisor.end_responses)
        yield
        group.cancel_scope.cancel()


async def entries(*gateways: Gateway) -> float:
    return sum([await gateway.metric("cache_entries") for gateway in gateways])


async def fill(app: Upstream, *gateways: Gateway) -> None:
    """Ask until both workers of each gateway keep both responses."""
    for gateway in gateways:
        await gateway.serve(cached(app.port, forget_on_events=True))

    async def filled() -> bool:
        for gateway in gateways:
            for path in ("/a", "/b"):
                await ask(gateway.address, get(path))
        return await entries(*gateways) == 4 * len(gateways)

    await wait_until(filled, what="all workers have all responses", every=0)


async def test_what_a_service_says_is_out_of_date_is_forgotten_by_all_workers_of_all_gateways(
    carrier: Carrier,
) -> None:
    bus = EventBus("shop", carrier.connect, publishes=[ResponsesOutdated])
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(upstream(numbered(FRESH, f'cache-groups: "{carrier.word}"')))
        gateways = [await stack.enter_async_context(running_gateway(workers=2)) for _ in range(2)]
        for gateway in gateways:
            await stack.enter_async_context(listening(gateway, carrier.connect))
        await stack.enter_async_context(bus.open())
        await fill(app, *gateways)
        await bus.publish(ResponsesOutdated(groups=("other",)))
        await bus.publish(ResponsesOutdated(urls=("http://test/a",)))

        async def are_left(count: int) -> bool:
            return await entries(*gateways) == count

        await wait_until(lambda: are_left(4), what="one URL is forgotten everywhere")
        await bus.publish(ResponsesOutdated(groups=(carrier.word,)))
        await wait_until(lambda: are_left(0), what="the group is forgotten everywhere")


def ignore() -> None:
    """For tests that do not ask when."""


@asynccontextmanager
async def hearing(connect: Any, note: Callable[[], None] = ignore) -> AsyncGenerator[list[Ended]]:
    """What a gateway's workers are told, from when it is known that nothing was missed."""
    bus, told = EventBus("toska-gateway", connect), list[Ended]()
    outdated = OutdatedResponses(bus)

    def tell(ended: Ended) -> None:
        told.append(ended)
        note()

    async with bus.open(), anyio.create_task_group() as group:
        group.start_soon(outdated.run, tell)
        await wait_until(lambda: told == [{}], what="the subscription stands, and all from before is forgotten")
        told.clear()
        yield told
        group.cancel_scope.cancel()


async def heard_while_nobody_was_told(event_log: LogHost, *outdated: ResponsesOutdated) -> list[Ended]:
    """What workers are told in the end of events that all came meanwhile."""
    registry, told = CollectorRegistry(), list[Ended]()
    bus = EventBus("toska-gateway", event_log.connect, registry=registry)
    gathered = OutdatedResponses(bus)

    def are_heard() -> bool:
        labels = {"handler": "cache", "outcome": "handled"}
        return registry.get_sample_value("toska_events_handled_total", labels) == len(outdated)

    async with bus.open():
        await until_told(gathered, [])  # that it hears from now on
        await bus.publish_batch([Message(bus.event(one)) for one in outdated])
        await wait_until(are_heard, what="all events were heard")
        await until_told(gathered, told)
    return told


async def until_told(gathered: OutdatedResponses, told: list[Ended]) -> None:
    """Have workers told, until they were."""
    async with anyio.create_task_group() as group:
        group.start_soon(gathered.run, told.append)
        await wait_until(lambda: bool(told), what="workers are told")
        group.cancel_scope.cancel()


async def test_a_flood_of_events_is_one_message(event_log: LogHost) -> None:
    same = [ResponsesOutdated(groups=("p-1", "p-2")) for _ in range(1000)]
    told = await heard_while_nobody_was_told(event_log, *same, ResponsesOutdated(routes=("shop",)))
    assert told == [{"groups": ["p-1", "p-2"], "routes": ["shop"]}]


async def test_many_names_are_told_in_parts_and_too_many_are_everything(event_log: LogHost) -> None:
    names = [f"p-{number}" for number in range(MOST_NAMES + 1)]
    parts = [ResponsesOutdated(groups=tuple(names[at : at + 1000])) for at in range(0, len(names), 1000)]
    told = await heard_while_nobody_was_told(event_log, *parts[:-1])
    assert len(told) > 10
    assert {name for ended in told for name in ended["groups"]} == set(names[:-1])
    with capture_logs() as logs:
        assert await heard_while_nobody_was_told(event_log, *parts, *parts) == [{}]
    assert [entry["event"] for entry in logs].count("cache_events_flood") == 1


async def test_workers_are_told_no_more_often_than_they_can_bear(event_log: LogHost) -> None:
    bus, times = EventBus("shop", event_log.connect), list[float]()
    async with hearing(event_log.connect, lambda: times.append(anyio.current_time())), bus.open():
        while len(times) < 4:
            await bus.publish(ResponsesOutdated(groups=("p-1",)))
    assert all(later - earlier >= 0.8 * EVERY_S for earlier, later in pairwise(times))


async def test_an_event_with_a_url_that_is_none_ends_nothing(event_log: LogHost) -> None:
    bus = EventBus("shop", event_log.connect)
    with capture_logs() as logs:
        async with hearing(event_log.connect) as told, bus.open():
            await bus.publish(ResponsesOutdated(groups=("p-1",), urls=("http://shop/", "http://shop/%zz")))
            await bus.publish(ResponsesOutdated(groups=("p-2",)))
            await wait_until(lambda: told == [{"groups": ["p-2"]}], what="the other one ends")
    (rejected,) = [entry for entry in logs if entry["event"] == "event_rejected"]
    assert "urls: http://shop/%zz cannot be read" in rejected["reason"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "name something"),
        ({"groups": ["ä"]}, "groups.0"),
        ({"groups": [""]}, "groups.0"),
        ({"groups": ["x"] * (MAX_OUTDATED + 1)}, "groups"),
        ({"urls": ["/a"]}, "urls.0"),
        ({"urls": ["http://shop/a b"]}, "urls.0"),
        ({"routes": [7]}, "routes.0"),
    ],
)
def test_what_names_nothing_that_could_end_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ResponsesOutdated.model_validate(fields)


async def test_on_rabbitmq_what_was_said_while_a_gateway_was_cut_off_is_heard_later(rig: Rig) -> None:
    bus = EventBus("shop", rig.open)
    async with (
        wire_to(rig.server.port) as wire,
        bus.open(),
        hearing(lambda: rig.open(rig.server.url_at(wire.port))) as told,
    ):
        await wire.sever()
        await bus.publish(ResponsesOutdated(groups=("p-1",)))
        assert told == []
        wire.mend()
        await wait_until(lambda: {"groups": ["p-1"]} in told, what="it is heard")


async def test_on_a_rabbitmq_without_a_log_a_gateway_that_was_cut_off_forgets_what_it_may_have_missed(
    rig: Rig,
) -> None:
    async with (
        wire_to(rig.server.port) as wire,
        hearing(lambda: rig.open(rig.server.url_at(wire.port), log="false")) as told,
    ):
        await wire.cut()
        await wait_until(lambda: told == [{}], what="everything that events may end is forgotten")


@pytest.fixture
async def events(home: Path) -> AsyncGenerator[LogHost]:
    async with log_host(home) as host:
        yield host


@pytest.fixture
async def mesh(home: Path, events: LogHost) -> AsyncGenerator[ControlMesh]:
    assert events.settings.home == home
    async with control_mesh(home, "discovery", "router", "gateway", workers=2) as mesh:
        await mesh.until_answered(f"{mesh.admin}/health/ready")
        yield mesh


async def put_shop(mesh: ControlMesh, port: int) -> None:
    cluster = {"endpoints": [{"address": "127.0.0.1", "port": port}]}
    route = {"match": {"path_prefix": "/shop"}, "to": "shop", "policies": {"cache": {"forget_on_events": True}}}
    for kind, document in (("clusters", cluster), ("routes", route)):
        answer = await mesh.http.put(f"{mesh.router}/api/v1/{kind}/shop", json=document, headers=mesh.bearer())
        assert answer.status_code == 201, answer.text


async def test_in_a_mesh_an_app_ends_responses_with_its_join_token_and_caches_go_on_without_events(
    mesh: ControlMesh, events: LogHost
) -> None:
    def connect() -> Any:
        return events.connect(token=mesh.credentials.join, service="shop")

    async def body() -> str:
        answer = await mesh.get(f"{mesh.data}/shop/1")
        return answer.text

    bus = EventBus("shop", connect, publishes=[ResponsesOutdated])
    outdated = ResponsesOutdated(groups=("p-1",), reason="its price changed")
    async with upstream(numbered(FRESH, 'cache-groups: "p-1"')) as app, bus.open():
        await put_shop(mesh, app.port)
        await mesh.until_answered(f"{mesh.data}/shop/1")

        async def ends() -> bool:
            before = len(app.requests)
            await bus.publish(outdated)
            await body()
            return len(app.requests) > before

        await wait_until(ends, what="an event ends what is kept")
        with capture_logs() as logs:
            await events.stop()
            await wait_until(kept(body), what="responses are kept while no events are carried", every=0)
            bus.offer(outdated)
            await events.start()
            asked = len(app.requests)

            async def is_ended() -> bool:
                await body()
                return len(app.requests) > asked

            await wait_until(is_ended, what="what was said meanwhile is heard")
    said = [entry["event"] for entry in logs if entry["log_level"] in ("warning", "error")]
    assert len(said) <= 4, said  # each who was connected says it once at most


def kept(body: Any) -> Any:
    """Whether many requests, on any worker, come to no more than two responses."""

    async def is_kept() -> bool:
        return len({await body() for _ in range(20)}) <= 2

    return is_kept

"""Topics of the mesh itself: nobody publishes to them who may not, whichever way they come."""

import uuid
from datetime import timedelta

import anyio
import pytest
from toska_common.clock import now_utc
from toska_common.events import EventBus, EventRefused
from toska_common.events.amqp.errors import CredentialsRefused
from toska_common.events.amqp.refusals import read_refusal
from toska_common.events.event import Event
from toska_common.events.transport import BEGINNING, Message, Priority, Subscription, Transport
from toska_tests.event_carriers import LogHost, publish, take, take_acked
from toska_tests.rabbit_rigs import Rig

pytestmark = pytest.mark.anyio


def event(topic: str) -> Event:
    return Event(topic=topic, source="/tests", id=uuid.uuid4().hex, time=now_utc(), data=b"{}")


async def topics(transport: Transport) -> list[str]:
    return [item.event.topic async for item in transport.read(["#"], BEGINNING)]


async def test_the_join_token_publishes_none_of_them_by_the_logs_socket(event_log: LogHost) -> None:
    async with event_log.connect(token=event_log.credentials.join, service="toska-router") as joined:
        with pytest.raises(EventRefused, match="need the admin token"):
            await publish(joined, event("shop.cart.left"), event("mesh.route.changed"))
        assert await topics(joined) == []  # nothing of the call
        await publish(joined, event("shop.cart.left"), event("meshes.are.mine"))
        async with joined.subscribe(Subscription(("mesh.#",), group="g")) as consumer, event_log.connect() as own:
            await publish(own, event("mesh.route.changed"))
            assert await take_acked(consumer) == [b"{}"]


async def test_an_apps_bus_says_so_before_anything_is_sent(event_log: LogHost) -> None:
    app = EventBus("orders", event_log.connect)
    async with app.open():
        with pytest.raises(EventRefused, match="a topic of the mesh itself"):
            await app.publish(app.event("mesh.route.changed", data={}))
    own = EventBus("toska-router", event_log.connect)
    async with own.open():
        await own.publish(own.event("mesh.route.changed", data={}))


async def test_a_user_of_rabbitmq_without_the_right_publishes_none_and_does_all_else(rig: Rig) -> None:
    async with rig.open() as own:  # declares what there is
        await publish(own, event("mesh.route.changed"))
        url = rig.server.add_user(f"app-{rig.namespace}", rig.namespace)
        async with rig.open(url) as app:
            for priority in Priority:
                with pytest.raises(CredentialsRefused, match=r"mesh\.breaker\.opened"):
                    await app.publish([Message(event("mesh.breaker.opened"), priority=priority)])
            async with app.subscribe(Subscription(("#",), group="all", ordered=True, start=BEGINNING)) as consumer:
                async with anyio.create_task_group() as group:  # what others publish meanwhile suffers nothing
                    group.start_soon(publish, app, *(event("shop.cart.left") for _ in range(20)))
                    with pytest.raises(CredentialsRefused):
                        await publish(app, event("mesh.breaker.opened"))
                seen = await take(consumer, 21)
                assert {delivery.event.topic for delivery in seen} == {"mesh.route.changed", "shop.cart.left"}
                await seen[0].retry(timedelta(milliseconds=10), "once more")
                for delivery in seen[1:]:
                    await delivery.ack()
                (again,) = await take(consumer)
                assert (again.event.id, again.attempt) == (seen[0].event.id, 2)
                await again.reject("enough")
            await app.publish([Message(event("shop.cart.found"), deliver_at=now_utc() + timedelta(milliseconds=50))])
            (letter,) = await app.administration.dead_letters("all")
            assert letter.reason == "enough"
        assert "mesh.breaker.opened" not in await topics(own)


def test_what_rabbitmq_refuses_is_told_from_other_reasons() -> None:
    topic = read_refusal(
        "ACCESS_REFUSED - write access to topic 'mesh.a' in exchange 'toska.events' in vhost '/' refused for user 'app'"
    )
    assert topic is not None
    assert topic.is_of("toska.events", "mesh.a")
    assert not topic.is_of("toska.events", "shop.a")
    exchange = read_refusal("ACCESS_REFUSED - access to exchange 'toska.events' in vhost '/' refused for user 'app'")
    assert exchange is not None
    assert exchange.is_of("toska.events", "shop.a")
    assert not exchange.is_of("", "toska.group.a")
    assert read_refusal("PRECONDITION_FAILED - unknown delivery tag 1") is None

"""AsyncAPI documents of what a service publishes and consumes."""

from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from toska_common.contracts.events import MESH_EVENTS, InstanceRegistered
from toska_common.events import EventBus, EventPayload, Incoming
from toska_common.events.asyncapi import build_asyncapi
from toska_common.events.transport import Transport


class Line(EventPayload):
    sku: str


class OrderPlaced(EventPayload, topic="orders.order.placed", version=2):
    """A customer ordered something."""

    id: str
    lines: tuple[Line, ...] = ()


def nowhere() -> AbstractAsyncContextManager[Transport]:
    raise AssertionError("describing a bus opens nothing")


def described() -> dict[str, Any]:
    bus = EventBus("orders", nowhere, publishes=[OrderPlaced])

    @bus.subscribe("payments.*.#", group="orders", where={"region": "eu"})
    async def settle(incoming: Incoming[Any]) -> None:
        """Note a payment."""

    @bus.subscribe(InstanceRegistered)
    async def look(incoming: Incoming[InstanceRegistered]) -> None: ...

    return build_asyncapi(bus, version="1.2.0", server="amqp://user:secret@broker:5672")


def test_a_bus_is_described_with_channels_operations_and_schemas() -> None:
    document = described()
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "orders", "version": "1.2.0"}
    assert document["servers"] == {"mesh": {"host": "broker:5672", "protocol": "amqp"}}
    assert {item["address"] for item in document["channels"].values()} == {
        "orders.order.placed",
        "payments.*.#",
        "mesh.instance.registered",
    }
    sent = document["operations"]["publish.orders.order.placed"]
    assert (sent["action"], sent["summary"]) == ("send", "A customer ordered something.")
    received = document["operations"]["settle.payments.any.all"]
    assert (received["action"], received["x-toska-group"]) == ("receive", "orders")
    assert received["x-toska-where"] == {"region": "eu"}
    message = document["components"]["messages"]["orders.order.placed"]
    assert message["headers"]["properties"]["dataversion"] == {"const": "2"}


def test_every_reference_leads_somewhere() -> None:
    document = described()

    def check(node: Any) -> int:
        if isinstance(node, list):
            return sum(check(item) for item in cast("list[Any]", node))
        if not isinstance(node, dict):
            return 0
        members = cast("dict[str, Any]", node)
        if "$ref" not in members:
            return sum(check(value) for value in members.values())
        found: Any = document
        for part in str(members["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        return 1

    assert check(document) > 8


def test_the_meshes_own_events_have_topics_of_their_own() -> None:
    topics = [payload_type.event_topic for payload_type in MESH_EVENTS]
    assert len(set(topics)) == len(topics)
    assert all(topic.startswith("mesh.") and topic.count(".") == 2 for topic in topics)
    assert all(payload_type.__doc__ for payload_type in MESH_EVENTS)

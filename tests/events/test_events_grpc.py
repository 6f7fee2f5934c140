"""The event bus over gRPC, by a real client: its seven methods, streams, credentials and errors."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from toska_common.protos import events_v1_pb2, events_v1_pb2_grpc
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.ports import free_port
from toska_tests.waiting import PATIENT_S, wait_until

pb: Any = events_v1_pb2
stubs: Any = events_v1_pb2_grpc
END: Any = vars(grpc.aio)["EOF"]  # not in the types


@pytest.fixture(scope="module")
async def events(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningEvents]:
    home: Path = tmp_path_factory.mktemp("home")
    async with discovery_in(home) as discovery, events_service(discovery, grpc_port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
async def channel(events: RunningEvents) -> AsyncGenerator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{events.settings.grpc_port}") as opened:
        with anyio.fail_after(PATIENT_S):
            await opened.channel_ready()
        yield opened


class Client:
    """Calls with one token."""

    def __init__(self, channel: Any, token: str) -> None:
        self._stub = stubs.EventBusStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=PATIENT_S)

    async def subscribe(self, **asked: Any) -> tuple[Any, str]:
        """The stream, and its subscription's id: it stands."""
        stream = self._stub.Subscribe(pb.SubscribeRequest(**asked), metadata=self._metadata, timeout=PATIENT_S)
        return stream, (await stream.read()).subscription_id

    async def code_of(self, method: str, request: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await self.call(method, request)
        return failed.value.code()


@pytest.fixture
def admin(events: RunningEvents, channel: Any) -> Client:
    return Client(channel, events.settings.credentials().admin)


@pytest.fixture
def join(events: RunningEvents, channel: Any) -> Client:
    return Client(channel, events.settings.credentials().join)


@pytest.fixture
def nobody(channel: Any) -> Client:
    return Client(channel, "")


async def test_what_is_published_is_streamed_to_subscribers(join: Client, nobody: Client) -> None:
    stream, id_ = await nobody.subscribe(topics=["rpc.told.*"], where={"region": "eu"})
    assert id_
    events = [
        pb.Event(topic="rpc.told.x", data=b"0"),
        pb.Event(topic="rpc.told.x", data=b"{}", key="k", subject="s", version=2, attributes={"region": "eu"}),
    ]
    answer = await join.call("Publish", pb.PublishRequest(events=events))
    received = await stream.read()
    assert (received.event.id, received.event.source, received.attempt) == (answer.ids[1], "/grpc", 1)
    assert (received.event.data, received.event.key, received.event.subject) == (b"{}", "k", "s")
    assert (received.event.version, received.event.content_type) == (2, "application/json")
    assert received.HasField("offset")
    stream.cancel()


async def test_a_subscription_reads_what_was_before_and_a_group_shares(join: Client) -> None:
    for data in (b"1", b"2"):
        await join.call("Publish", pb.PublishRequest(events=[pb.Event(topic="rpc.past", data=data)]))
    stream, _ = await join.subscribe(topics=["rpc.past"], beginning=True)
    assert [(await stream.read()).event.data for _ in range(2)] == [b"1", b"2"]
    stream.cancel()
    shared, _ = await join.subscribe(topics=["rpc.past"], group="rpc", beginning=True)
    assert [(await shared.read()).event.data for _ in range(2)] == [b"1", b"2"]
    shared.cancel()


async def test_a_subscription_is_ended_by_its_id(nobody: Client) -> None:
    stream, id_ = await nobody.subscribe(topics=["rpc.ended"])
    await nobody.call("Unsubscribe", pb.UnsubscribeRequest(subscription_id=id_))
    assert await stream.read() is END
    again = pb.UnsubscribeRequest(subscription_id=id_)
    assert await nobody.code_of("Unsubscribe", again) is grpc.StatusCode.NOT_FOUND


async def test_a_topic_is_created_described_listed_and_deleted(admin: Client, nobody: Client) -> None:
    asked = pb.CreateTopicRequest(name="rpc.topic", description="Carts")
    asked.max_age.FromSeconds(3600)
    made = await admin.call("CreateTopic", asked)
    assert (made.description, made.max_age.seconds, made.replayable, made.events) == ("Carts", 3600, True, 0)
    name = pb.GetTopicMetadataRequest(name="rpc.topic")
    assert await nobody.call("GetTopicMetadata", name) == made
    assert made in (await nobody.call("ListTopics", pb.ListTopicsRequest())).topics
    await admin.call("DeleteTopic", pb.DeleteTopicRequest(name="rpc.topic"))
    assert await nobody.code_of("GetTopicMetadata", name) is grpc.StatusCode.NOT_FOUND


async def test_who_may_is_as_over_http(join: Client, nobody: Client) -> None:
    own = pb.PublishRequest(events=[pb.Event(topic="mesh.x.y")])
    assert await nobody.code_of("Publish", own) is grpc.StatusCode.UNAUTHENTICATED
    assert await join.code_of("Publish", own) is grpc.StatusCode.PERMISSION_DENIED
    assert await join.code_of("CreateTopic", pb.CreateTopicRequest(name="a")) is grpc.StatusCode.PERMISSION_DENIED
    assert await join.code_of("DeleteTopic", pb.DeleteTopicRequest(name="a")) is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await nobody.subscribe(topics=["a"], group="g")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Publish", pb.PublishRequest(), "events"),
        ("Publish", pb.PublishRequest(events=[pb.Event(topic="a b")]), "events[0].topic"),
        ("Publish", pb.PublishRequest(events=[pb.Event(topic="a", attributes={"Region": "x"})]), "Region"),
        ("Publish", pb.PublishRequest(events=[pb.Event(topic="a", attributes={"id": "x"})]), "attributes"),
        ("Publish", pb.PublishRequest(events=[pb.Event(topic="a", time=Timestamp(seconds=10**14))]), "events[0].time"),
        ("CreateTopic", pb.CreateTopicRequest(name="a..b"), "name"),
        ("CreateTopic", pb.CreateTopicRequest(name="a", max_bytes=-1), "max_bytes"),
    ],
)
async def test_what_is_wrong_is_named(admin: Client, method: str, request_: Any, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await admin.call(method, request_)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (failed.value.details() or "")


@pytest.mark.parametrize("asked", [{"topics": []}, {"topics": ["a..b"]}, {"topics": ["a"], "offset": -1}])
async def test_a_subscription_that_cannot_be_is_refused(nobody: Client, asked: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await nobody.subscribe(**asked)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_health_protocol_answers_for_the_bus(channel: Any) -> None:
    health: Any = health_pb2
    stub: Any = health_pb2_grpc

    async def is_serving() -> bool:
        asked = health.HealthCheckRequest(service="toska.events.v1.EventBus")
        return (await stub.HealthStub(channel).Check(asked)).status == health.HealthCheckResponse.SERVING

    await wait_until(is_serving)


async def test_a_reader_that_takes_nothing_is_dropped(tmp_path: Path) -> None:
    port = free_port()
    async with (
        discovery_in(tmp_path) as discovery,
        events_service(discovery, grpc_port=port, stream_patience="300ms") as events,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with anyio.fail_after(PATIENT_S):
            await channel.channel_ready()
        client = Client(channel, events.settings.credentials().join)
        stream, _ = await client.subscribe(topics=["large.#"])
        large = pb.Event(topic="large.x", data=bytes(500_000))
        for _ in range(40):  # windows of flow control grow to several MiB
            await client.call("Publish", pb.PublishRequest(events=[large]))

        async def is_dropped() -> bool:
            answer = await events.http.get(f"http://127.0.0.1:{events.settings.port}/metrics")
            return "toska_events_members 0.0" in answer.text

        await wait_until(is_dropped, within=PATIENT_S, what="the reader to be dropped")
        with anyio.fail_after(PATIENT_S):
            while await stream.read() is not END:
                pass


async def test_streams_end_when_the_service_stops(tmp_path: Path) -> None:
    port = free_port()
    async with discovery_in(tmp_path) as discovery, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        async with events_service(discovery, grpc_port=port):
            with anyio.fail_after(PATIENT_S):
                await channel.channel_ready()
            stream, _ = await Client(channel, "").subscribe(topics=["nothing.here"])
        with anyio.fail_after(PATIENT_S):
            assert await stream.read() is END

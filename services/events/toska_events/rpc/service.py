"""The methods of `toska.events.v1.EventBus`: parse, ask the transport, fill the answer.

Each call has a deadline, the caller's or one of ours; a subscription has only the caller's.
"""

import secrets
from typing import Any

import anyio
import structlog
from prometheus_client import CollectorRegistry
from toska_common.credentials import Access
from toska_common.errors import MeshError, NotFound
from toska_common.events.errors import EventTooLarge, UnknownTopic
from toska_common.events.topics import check_topic
from toska_common.events.transport import Subscription
from toska_common.protos import events_v1_pb2, events_v1_pb2_grpc
from toska_common.rpc.answering import Answering
from toska_common.security import ManagementPolicy

from toska_events.access import require_own
from toska_events.parts import Parts
from toska_events.rpc.messages import read_messages, read_settings, read_subscription, received, topic, wrong
from toska_events.streaming.places import place

MAX_BATCH = 1000

log = structlog.get_logger(__name__)

pb: Any = events_v1_pb2  # made by protoc, without types


class EventBus(events_v1_pb2_grpc.EventBusServicer):
    """Answers over the service's parts, to whom `policy` lets in."""

    def __init__(self, parts: Parts, policy: ManagementPolicy, registry: CollectorRegistry) -> None:
        self._parts = parts
        self._answering = Answering(policy, registry, "toska_events_rpcs")
        self._subscriptions: dict[str, anyio.CancelScope] = {}

    # The protocol's names; what they do is below.

    async def Unsubscribe(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Unsubscribe", self._unsubscribe, request, context)

    async def Publish(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Publish", self._publish, request, context, Access.JOIN)

    async def CreateTopic(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("CreateTopic", self._create_topic, request, context, Access.ADMIN)

    async def DeleteTopic(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("DeleteTopic", self._delete_topic, request, context, Access.ADMIN)

    async def ListTopics(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("ListTopics", self._list_topics, request, context)

    async def GetTopicMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("GetTopicMetadata", self._get_topic, request, context)

    async def Subscribe(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
        failure: MeshError | None = None
        try:
            self._answering.admit(context, Access.JOIN if request.group else None)
            with place(self._parts):
                await self._tell(read_subscription(request), context)
        except MeshError as error:
            failure = error
        if failure is not None:
            await self._answering.fail("Subscribe", failure, context)
        self._answering.calls.labels("Subscribe", "OK").inc()

    # What they do.

    async def _tell(self, subscription: Subscription, context: Any) -> None:
        """Until the caller leaves, somebody unsubscribes it, or the service stops."""
        id_ = secrets.token_hex(16)
        failure: MeshError | None = None
        try:
            async with (
                self._parts.get_transport().subscribe(subscription) as consumer,
                anyio.create_task_group() as group,
            ):
                self._subscriptions[id_] = group.cancel_scope
                group.start_soon(self._until_stopped, group.cancel_scope)
                try:
                    await context.write(pb.Received(subscription_id=id_))
                    async for delivery in consumer:
                        if subscription.wants(delivery.event) and not await self._write(context, received(delivery)):
                            break
                        await delivery.ack()
                except MeshError as error:
                    failure = error
                group.cancel_scope.cancel()
        finally:
            self._subscriptions.pop(id_, None)
        if failure is not None:
            raise failure

    async def _write(self, context: Any, message: Any) -> bool:
        # What a reader has yet to be given is kept in the log, whatever its age: who takes nothing is not waited for.
        patience_s = self._parts.settings.stream_patience.total_seconds()
        with anyio.move_on_after(patience_s) as scope:
            await context.write(message)
        if scope.cancelled_caught:
            log.info("event_reader_dropped", reason=f"took nothing for {patience_s:g} s")
        return not scope.cancelled_caught

    async def _until_stopped(self, scope: anyio.CancelScope) -> None:
        await self._parts.stopping.wait()
        scope.cancel()

    async def _unsubscribe(self, request: Any, _: Access | None) -> Any:
        # Its id is known to nobody but who was given it.
        scope = self._subscriptions.get(request.subscription_id)
        if scope is None:
            raise NotFound("no such subscription is open at this events service")
        scope.cancel()
        return pb.UnsubscribeResponse()

    async def _publish(self, request: Any, access: Access | None) -> Any:
        if not 1 <= len(request.events) <= MAX_BATCH:
            raise wrong("events", f"between 1 and {MAX_BATCH} of them")
        messages = read_messages(request, self._parts.clock.now())
        limit = self._parts.settings.max_event_bytes
        for message in messages:
            require_own(message.event.topic, access)
            if len(message.event.data) > limit:
                size = len(message.event.data)
                raise EventTooLarge(f"the data have {size} bytes; {limit} are allowed", max_bytes=limit)
        await self._parts.publish(messages)
        return pb.PublishResponse(ids=[message.event.id for message in messages])

    async def _create_topic(self, request: Any, _: Access | None) -> Any:
        settings = read_settings(request)
        await self._parts.get_transport().administration.put_topic(settings)
        return await self._topic(settings.name)

    async def _delete_topic(self, request: Any, _: Access | None) -> Any:
        name = check_topic(request.name, field="name")
        await self._parts.get_transport().administration.delete_topic(name)
        return pb.DeleteTopicResponse()

    async def _list_topics(self, _: Any, __: Access | None) -> Any:
        states = await self._parts.get_transport().administration.topics()
        return pb.ListTopicsResponse(topics=[topic(state) for state in sorted(states, key=lambda s: s.settings.name)])

    async def _get_topic(self, request: Any, _: Access | None) -> Any:
        return await self._topic(check_topic(request.name, field="name"))

    async def _topic(self, name: str) -> Any:
        for state in await self._parts.get_transport().administration.topics():
            if state.settings.name == name:
                return topic(state)
        raise UnknownTopic(f"nobody created {name} or published to it", topic=name)

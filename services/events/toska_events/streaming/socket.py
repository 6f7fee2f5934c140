"""Events over a WebSocket: JSON text frames out, and what became of each event back, where the client settles by hand.

While what carries events is away nothing comes, and the connection stays: what was in hand comes again afterwards, with
another id and a higher attempt. It closes with 1001 when the service stops, 1013 when the subscription cannot go on,
1007 on a frame that is not what it should be, and 1008 when the client takes nothing.
"""

import contextlib

import anyio
import structlog
from fastapi import WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect
from toska_common.contracts.eventing import Settlement, SocketEvent, SocketQuery
from toska_common.errors import MeshError
from toska_common.events import cloudevents
from toska_common.events.errors import EventsUnavailable
from toska_common.events.transport import Consumer, Delivery, Subscription

from toska_events.parts import Parts
from toska_events.streaming.places import place
from toska_events.streaming.settling import InHand

log = structlog.get_logger(__name__)

GOING_AWAY, NOT_A_SETTLEMENT, TOO_SLOW, TRY_LATER = 1001, 1007, 1008, 1013
_CLOSE_WITHIN_S = 1.0
_LOOK_EVERY_S = 0.25


async def serve_socket(parts: Parts, websocket: WebSocket, subscription: Subscription, query: SocketQuery) -> None:
    """Send what the subscription gives, until one side leaves.

    Raises:
        MeshError: It could not be opened; the WebSocket is not accepted then.
    """
    with place(parts):
        opened = _Socket(parts, websocket, subscription, query)
        try:
            transport = parts.get_transport()
            if not transport.connected:
                raise EventsUnavailable("what carries events is away")
            async with transport.subscribe(subscription) as consumer:
                await websocket.accept()
                await opened.run(consumer)
        except MeshError as error:
            if not opened.running:
                raise
            log.info("event_socket_interrupted", reason=error.detail)
            opened.closing = (TRY_LATER, "what carries events is away")
        await opened.close()


class _Socket:
    """One connection, once it is accepted."""

    def __init__(self, parts: Parts, websocket: WebSocket, subscription: Subscription, query: SocketQuery) -> None:
        self._parts = parts
        self._websocket = websocket
        self._subscription = subscription
        self._by_hand = query.ack == "manual"
        self._in_hand = InHand(subscription.retrying, query.settle_within.total_seconds())
        self._patience_s = parts.settings.stream_patience.total_seconds()
        self._sending = anyio.Lock()
        self._sent = 0
        self.running = False
        self.closing: tuple[int, str] | None = None
        """Code and reason to close with; `None` once the client has left."""

    async def run(self, consumer: Consumer) -> None:
        """Until the client leaves or is dropped, or the service stops."""
        self.running = True
        failure: MeshError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._receive, group.cancel_scope)
            group.start_soon(self._until_stopped, group.cancel_scope)
            if self._by_hand:
                group.start_soon(self._take_back)
            try:
                async for delivery in consumer:
                    if not await self._tell(delivery):
                        break
            except MeshError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Say why, to whoever is still there."""
        if self.closing is not None:
            with anyio.move_on_after(_CLOSE_WITHIN_S):
                await self._websocket.close(*self.closing)

    async def _tell(self, delivery: Delivery) -> bool:
        if not self._subscription.wants(delivery.event):
            await delivery.ack()
            return True
        self._sent += 1
        if self._by_hand:
            self._in_hand.take(self._sent, delivery, anyio.current_time())
        event = SocketEvent(
            id=self._sent,
            attempt=delivery.attempt,
            offset=delivery.offset,
            event=cloudevents.to_document(delivery.event),
        )
        if not await self._send(event.model_dump_json()):
            return False
        if not self._by_hand:
            await delivery.ack()
        return True

    async def _send(self, text: str) -> bool:
        with anyio.move_on_after(self._patience_s) as scope:
            async with self._sending:
                try:
                    await self._websocket.send_text(text)
                except WebSocketDisconnect:
                    return False
        if scope.cancelled_caught:
            self.closing = (TOO_SLOW, f"took nothing for {self._patience_s:g} s")
            log.info("event_reader_dropped", reason=self.closing[1])
        return not scope.cancelled_caught

    async def _receive(self, scope: anyio.CancelScope) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                break
            if not await self._settle(received.get("text")):
                break
        scope.cancel()

    async def _settle(self, text: str | None) -> bool:
        try:
            settlement = Settlement.model_validate_json(text or "")
        except ValidationError as error:
            self.closing = (NOT_A_SETTLEMENT, f"not a settlement: {error.errors()[0]['msg']}"[:120])
            return False
        if not self._by_hand:
            self.closing = (NOT_A_SETTLEMENT, "nothing is settled by hand without ack=manual")
            return False
        try:
            problem = "" if await self._in_hand.settle(settlement) else "no event in hand has this id"
        except EventsUnavailable:
            problem = "what carries events is away, and the event comes again"
        # It may also have been handed out again for lateness, or settled before: no reason to leave.
        return not problem or await self._send(f'{{"error": "{problem}", "settlement": {text}}}')

    async def _take_back(self) -> None:
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            with contextlib.suppress(EventsUnavailable):  # then it comes again by itself
                await self._in_hand.take_back(anyio.current_time())

    async def _until_stopped(self, scope: anyio.CancelScope) -> None:
        await self._parts.stopping.wait()
        self.closing = (GOING_AWAY, "the events service stops")
        scope.cancel()

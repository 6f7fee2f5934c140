"""Deliveries of one subscription, over any number of connections."""

import array
import asyncio
import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from toska_common.clock import now_utc
from toska_common.errors import MeshError
from toska_common.events.embedded.frames import Kind, frame, id_bytes
from toska_common.events.embedded.records import DeliveredEntry, decode_event, microseconds, unpack_delivered
from toska_common.events.embedded.wording import Resumed, pack_retry
from toska_common.events.event import Event
from toska_common.events.transport import Subscription


class EmbeddedDelivery:
    """An event in the hands of a consumer. Once its connection is gone it can no longer be settled: it comes again."""

    __slots__ = ("_consumer", "_entry", "_event", "_life")

    def __init__(self, consumer: "EmbeddedConsumer", life: int, entry: DeliveredEntry) -> None:
        self._consumer = consumer
        self._life = life
        self._entry = entry
        self._event: Event | None = None

    @property
    def event(self) -> Event:
        """What happened; read when it is first asked for."""
        if self._event is None:
            self._event = decode_event(self._entry.head, self._entry.data)
        return self._event

    @property
    def attempt(self) -> int:
        """How often the group was given it, from 1."""
        return self._entry.attempt

    @property
    def offset(self) -> int | None:
        """Its place in the log; `None` for one that is kept nowhere."""
        offset = self._entry.offset
        return offset if offset > 0 else None

    async def ack(self) -> None:
        """It was handled; the log is told in this turn of the loop, and stores it some milliseconds later."""
        self._consumer.ack(self._life, self._entry.offset)

    async def retry(self, after: timedelta, reason: str) -> None:
        """Hand it out again, no earlier than `after`."""
        self._consumer.settle(self._life, Kind.RETRY, self._entry.offset, after, reason)

    async def reject(self, reason: str) -> None:
        """Keep it with the dead letters."""
        self._consumer.settle(self._life, Kind.REJECT, self._entry.offset, timedelta(0), reason)


class EmbeddedConsumer:
    """A live subscription.

    What it is given waits here until it is asked for: as many events as it has `prefetch`, at most.

    Args:
        number: Its id on the socket.
        send: Writes a frame, if there is a connection.
    """

    def __init__(self, number: int, subscription: Subscription, send: Callable[[bytes], None]) -> None:
        self.number = number
        self.subscription = subscription
        self._send = send
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._life = 0
        self._waiting: deque[EmbeddedDelivery] = deque()
        self._unsettled: dict[int, int] = {}
        self._cursors: list[int] | None = None
        self._heard_at = 0
        self._acks = array.array("q")
        self._wake: list[asyncio.Future[None]] = []
        self._failure: MeshError | None = None

    def __aiter__(self) -> "EmbeddedConsumer":
        return self

    async def __anext__(self) -> EmbeddedDelivery:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            woken = self._loop.create_future()
            self._wake.append(woken)
            await woken
        return self._waiting.popleft()

    @property
    def resume(self) -> Resumed | None:
        """Where it was, for one that shares with nobody: the log has forgotten it."""
        if self._cursors is None or self.subscription.group is not None:
            return None
        low, normal, high = self._cursors
        return Resumed((low, normal, high), tuple(sorted(self._unsettled.items())), self._heard_at)

    def begin(self, positions: list[int]) -> None:
        """The log has it now, and is at these offsets."""
        self._life += 1
        if self._cursors is None:
            self._cursors = positions
        if not self.opened.done():
            self.opened.set_result(None)

    def lose(self) -> None:
        """Its connection broke: what it has not been asked for will come again."""
        self._heard_at = microseconds(now_utc())
        self._life += 1
        for delivery in self._waiting:  # those that nobody was given have not been tried
            if delivery.offset in self._unsettled:
                self._unsettled[delivery.offset] -= 1
        self._waiting.clear()
        del self._acks[:]

    def fail(self, error: MeshError) -> None:
        """The log does not want it."""
        self._failure = error
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()
        self._wake_all()

    def deliver(self, payload: bytes) -> None:
        """Take what came in a DELIVER frame."""
        cursors = self._cursors if self.subscription.group is None else None
        for entry in unpack_delivered(payload):
            self._waiting.append(EmbeddedDelivery(self, self._life, entry))
            if cursors is not None and entry.offset > 0:
                self._note(entry, cursors)
        self._wake_all()

    def ack(self, life: int, offset: int) -> None:
        """Tell the log, together with what else is acked in this turn of the loop."""
        if life != self._life:
            return
        if not self._acks:
            self._loop.call_soon(self.flush)
        self._acks.append(offset)
        self._unsettled.pop(offset, None)

    def flush(self) -> None:
        """Send the acks that there are."""
        if not self._acks:
            return
        acks, self._acks = self._acks, array.array("q")
        if sys.byteorder == "big":
            acks.byteswap()
        self._send(frame(Kind.ACK, id_bytes(self.number), acks.tobytes()))

    def settle(self, life: int, kind: Kind, offset: int, after: timedelta, reason: str) -> None:
        """Tell the log of one that was not handled."""
        if life != self._life:
            return
        if kind is Kind.REJECT:
            self._unsettled.pop(offset, None)
        self._send(frame(kind, id_bytes(self.number), pack_retry(offset, after, reason)))

    def _note(self, entry: DeliveredEntry, cursors: list[int]) -> None:
        lane = 1 if self.subscription.ordered else entry.priority
        cursors[lane] = max(cursors[lane], entry.offset)
        self._unsettled[entry.offset] = entry.attempt

    def _wake_all(self) -> None:
        wake, self._wake = self._wake, []
        for future in wake:
            if not future.done():
                future.set_result(None)

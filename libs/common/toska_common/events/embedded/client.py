"""A connection to the log that comes back: what was asked and not answered is asked again, subscriptions are reopened.

Publishing again is safe: the log knows events that it stored lately by source and id, and stores none twice.
"""

import asyncio
import itertools
import logging
import struct
from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog

from toska_common.events.embedded.consumer import EmbeddedConsumer
from toska_common.events.embedded.frames import ID_BYTES, Kind, frame, id_bytes, id_of, json_frame, json_of
from toska_common.events.embedded.link import Link
from toska_common.events.embedded.wording import SubscribeRequest, error_of
from toska_common.events.errors import EventsUnavailable
from toska_common.events.transport import DEFAULT_MAX_BYTES, Subscription

log = structlog.get_logger(__name__)

UNCONFIRMED_BYTES = 8 << 20
"""Publishing waits while more than this is underway."""
_PAUSE_S = (0.01, 0.25)
"""Trying costs some microseconds: the socket is of this machine."""
_POSITIONS = struct.Struct("<qqq")


@dataclass(slots=True)
class _Request:
    frame: bytes
    answer: asyncio.Future[bytes]
    again: bool
    """Whether it may be asked a second time, over another connection."""


class LogClient:
    """The log, as this process sees it. `run` keeps the connection.

    Args:
        path: Of the socket.
        timeout_s: How long a call waits for the log.
    """

    def __init__(self, path: Path, token: str, service: str, timeout_s: float) -> None:
        self.max_event_bytes = DEFAULT_MAX_BYTES
        self._path = path
        self._token = token
        self._service = service
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._consumers: dict[int, EmbeddedConsumer] = {}
        self._unconfirmed_bytes = 0
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._failure = "it was never reached"
        self.first_attempt: asyncio.Future[None] = self._loop.create_future()

    @property
    def connected(self) -> bool:
        """Whether the log is there now."""
        return self._link is not None

    async def run(self) -> None:
        """Connect, and connect again, for ever."""
        pause = _PAUSE_S[0]
        while True:
            try:
                link = await Link.open(self._path, self._token, self._service, self._heard)
            except EventsUnavailable as error:
                self._failure = error.detail
                if not self.first_attempt.done():
                    self.first_attempt.set_exception(error)
                await anyio.sleep(pause)
                pause = min(pause * 2, _PAUSE_S[1])
                continue
            pause = _PAUSE_S[0]
            try:
                self._begin(link)
                self._failure = await link.watch()
                log.log(logging.INFO if link.is_orderly else logging.WARNING, "event_log_lost", reason=self._failure)
            finally:
                self._end(link)
            await anyio.sleep(pause)

    async def publish(self, pieces: list[bytes], size: int) -> None:
        """Have events stored.

        Raises:
            EventsUnavailable: It was not confirmed in time.
            LogFull: There is no room.
        """
        if self._lacks_room(size):
            with self._deadline():
                while self._lacks_room(size):
                    await self._wait_for_room()
        self._unconfirmed_bytes += size
        try:
            await self._ask(Kind.PUBLISH, pieces, again=True)
        finally:
            self._unconfirmed_bytes -= size
            self._make_room()

    async def call(self, content: dict[str, Any]) -> dict[str, Any]:
        """Have the log do something for an operator.

        Raises:
            EventsUnavailable: It did not answer; it may or may not have done it.
            MeshError: It cannot be done.
        """
        body = json_frame(Kind.CALL, content, 0)[_BODY:]
        return json_of(await self._ask(Kind.CALL, [body], again=False))

    async def read(self, content: dict[str, Any]) -> bytes:
        """A page of the log.

        Raises:
            EventsUnavailable: It did not answer.
        """
        return await self._ask(Kind.READ, [json_frame(Kind.READ, content, 0)[_BODY:]], again=True)

    async def subscribe(self, subscription: Subscription) -> EmbeddedConsumer:
        """Open a subscription; `unsubscribe` closes it.

        Raises:
            EventsUnavailable: The log did not answer.
            MeshError: It does not want this subscription.
        """
        consumer = EmbeddedConsumer(self._next_number(), subscription, self._send)
        self._consumers[consumer.number] = consumer
        with ExitStack() as undo:
            undo.callback(self.unsubscribe, consumer)
            self._open(consumer)
            with self._deadline():
                await asyncio.shield(consumer.opened)
            undo.pop_all()
        return consumer

    def unsubscribe(self, consumer: EmbeddedConsumer) -> None:
        """Close a subscription."""
        consumer.flush()
        if self._consumers.pop(consumer.number, None) is not None:
            self._send(frame(Kind.UNSUBSCRIBE, id_bytes(consumer.number)))

    def close(self) -> None:
        """End the connection, once what was written is sent."""
        for consumer in list(self._consumers.values()):
            self.unsubscribe(consumer)
        if self._link is not None:
            self._link.close()
        for request in self._requests.values():
            if not request.answer.done():
                request.answer.set_exception(EventsUnavailable("the connection to the event log was closed"))

    async def _ask(self, kind: Kind, pieces: list[bytes], *, again: bool) -> bytes:
        number = self._next_number()
        request = _Request(frame(kind, id_bytes(number), *pieces), self._loop.create_future(), again)
        if not again and self._link is None:
            raise EventsUnavailable(f"the event log is away: {self._failure}")
        self._requests[number] = request
        self._send(request.frame)
        timer = self._loop.call_later(self._timeout_s, self._expire, request)
        try:
            return await request.answer
        finally:
            timer.cancel()
            del self._requests[number]

    def _next_number(self) -> int:
        # They come round after some weeks of publishing; a subscription may be older than that.
        while True:
            number = next(self._numbers) & 0xFFFFFFFF
            if number not in self._consumers and number not in self._requests:
                return number

    def _expire(self, request: _Request) -> None:
        if not request.answer.done():
            request.answer.set_exception(self._too_late())

    def _too_late(self) -> EventsUnavailable:
        why = "" if self.connected else f": {self._failure}"
        return EventsUnavailable(f"the event log did not answer within {self._timeout_s:g} s{why}")

    @contextmanager
    def _deadline(self) -> Generator[None]:
        try:
            with anyio.fail_after(self._timeout_s):
                yield
        except TimeoutError as error:
            raise self._too_late() from error

    def _begin(self, link: Link) -> None:
        self._link = link
        self.max_event_bytes = link.max_event_bytes
        for request in self._requests.values():
            link.send(request.frame)
        for consumer in self._consumers.values():
            self._open(consumer)
        if not self.first_attempt.done():
            self.first_attempt.set_result(None)

    def _end(self, link: Link) -> None:
        self._link = None
        link.close()
        for consumer in self._consumers.values():
            consumer.lose()
        for request in self._requests.values():
            if not request.again and not request.answer.done():
                request.answer.set_exception(EventsUnavailable(self._failure))

    def _open(self, consumer: EmbeddedConsumer) -> None:
        request = SubscribeRequest.of(consumer.subscription, consumer.resume)
        self._send(json_frame(Kind.SUBSCRIBE, request.json(), consumer.number))

    def _send(self, data: bytes) -> None:
        if self._link is not None:
            self._link.send(data)

    def _heard(self, kind: int, payload: bytes) -> None:
        match kind:
            case Kind.DELIVER:
                consumer = self._consumers.get(id_of(payload))
                if consumer is not None:
                    consumer.deliver(payload)
            case Kind.CONFIRM:
                for (number,) in struct.iter_unpack("<I", payload):
                    self._answer(number, b"")
            case Kind.SUBSCRIBED:
                consumer = self._consumers.get(id_of(payload))
                if consumer is not None:
                    consumer.begin(list(_POSITIONS.unpack_from(payload, ID_BYTES)))
            case Kind.RESULT | Kind.PAGE:
                self._answer(id_of(payload), payload)
            case Kind.FAILED:
                self._failed(id_of(payload), payload)
            case _:
                log.warning("event_log_not_understood", kind=kind)

    def _answer(self, number: int, payload: bytes) -> None:
        request = self._requests.get(number)
        if request is not None and not request.answer.done():
            request.answer.set_result(payload)

    def _failed(self, number: int, payload: bytes) -> None:
        error = error_of(json_of(payload))
        request, consumer = self._requests.get(number), self._consumers.get(number)
        if request is not None and not request.answer.done():
            request.answer.set_exception(error)
        elif consumer is not None:
            consumer.fail(error)

    def _lacks_room(self, size: int) -> bool:
        return self._unconfirmed_bytes > 0 and self._unconfirmed_bytes + size > UNCONFIRMED_BYTES

    async def _wait_for_room(self) -> None:
        future = self._loop.create_future()
        self._waiting_for_room.append(future)
        try:
            await future
        finally:
            if future in self._waiting_for_room:
                self._waiting_for_room.remove(future)

    def _make_room(self) -> None:
        while self._waiting_for_room and self._unconfirmed_bytes < UNCONFIRMED_BYTES:
            future = self._waiting_for_room.popleft()
            if not future.done():
                future.set_result(None)
                return


_BODY = 5 + ID_BYTES
"""Where the JSON of a frame with an id begins."""

"""One client of the socket: frames in, frames out.

A client that sends what is no frame is told why and cut off. One that does not read is given no more deliveries once
the socket's buffer is full, and is not read from while its answers wait; one that is not heard of for a while is taken
for dead, and what it had in hand goes to others.
"""

import array
import asyncio
import struct
import sys
from collections import deque
from typing import Any, cast

import anyio
import structlog
from anyio.abc import TaskGroup
from toska_common.credentials import Access, Credentials
from toska_common.errors import Forbidden, InvalidInput, MeshError
from toska_common.events.embedded.frames import (
    ID_BYTES,
    PROTOCOL,
    BadFrame,
    FrameReader,
    Kind,
    frame,
    id_bytes,
    id_of,
    json_frame,
    json_of,
)
from toska_common.events.embedded.records import decode_messages, pack_delivered
from toska_common.events.embedded.wording import (
    ReadRequest,
    SubscribeRequest,
    problem_json,
    read_retry,
)
from toska_common.events.errors import EventRefused
from toska_common.events.topics import is_reserved

from toska_events.administration import Administrator
from toska_events.brokering.broker import Broker
from toska_events.brokering.subscribing import join
from toska_events.groups.entry import Entry
from toska_events.groups.group import Group
from toska_events.groups.member import Member
from toska_events.serving.paging import read_page

log = structlog.get_logger(__name__)

_POSITIONS = struct.Struct("<qqq")
_GREETING_BYTES = 4096
_MOST_CALLS = 64
"""Of a client that are worked on at a time; the others wait, and meanwhile it is not read from."""
_UNCONFIRMED_BYTES = 16 << 20
"""A client that has more than this underway is not read from until some of it is stored."""
_BUFFERED_BYTES = 1 << 20


class Served:
    """What all connections share.

    Attributes:
        connections: Those that are open.
    """

    def __init__(
        self,
        broker: Broker,
        administrator: Administrator,
        credentials: Credentials,
        max_event_bytes: int,
        tasks: TaskGroup,
    ) -> None:
        self.broker = broker
        self.administrator = administrator
        self.credentials = credentials
        self.max_event_bytes = max_event_bytes
        self.tasks = tasks
        self.connections: set[Connection] = set()
        self.refused = 0
        self._none_left = anyio.Event()

    async def all_gone(self) -> None:
        """Return once no connection is open."""
        if self.connections:
            self._none_left = anyio.Event()
            await self._none_left.wait()

    def gone(self, connection: "Connection") -> None:
        """One has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._none_left.set()


class Connection(asyncio.Protocol):
    """A client, from hello to goodbye."""

    def __init__(self, served: Served) -> None:
        self.service = ""
        self.heard_at = 0.0
        self.access: Access | None = None
        self._served = served
        self._broker = served.broker
        self._frames = FrameReader(_GREETING_BYTES)
        self._transport: asyncio.Transport | None = None
        self._topics: set[str] = set()
        self._members: dict[int, tuple[Group, Member]] = {}
        self._joining: set[int] = set()
        self._confirmed = array.array("I")
        self._unconfirmed_bytes = 0
        self._calls = 0
        self._waiting_calls: deque[tuple[Any, int, dict[str, Any]]] = deque()
        self._reading = True
        self._writable = True
        self._handlers = {
            Kind.PUBLISH: self._publish,
            Kind.ACK: self._ack,
            Kind.RETRY: self._retry,
            Kind.REJECT: self._reject,
            Kind.SUBSCRIBE: self._subscribe,
            Kind.UNSUBSCRIBE: self._unsubscribe,
            Kind.CALL: self._call,
            Kind.READ: self._read,
            Kind.PONG: self._pong,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # of a stream socket; uvloop's is no subclass
        self._transport.set_write_buffer_limits(high=_BUFFERED_BYTES)
        self.heard_at = self._broker.clock.monotonic()
        self._served.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting_calls.clear()
        self._served.gone(self)
        members, self._members = self._members, {}
        for group, member in members.values():
            self._broker.leave(group, member)

    def pause_writing(self) -> None:
        self._writable = False
        for _, member in self._members.values():
            member.listening = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        for group, member in self._members.values():
            member.listening = True
            self._broker.touch(group)
        self._regulate()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._broker.clock.monotonic()
        try:
            for kind, payload in self._frames.feed(data):
                if self._transport is None:
                    return
                self._handle(kind, payload)
        except BadFrame as error:
            self._served.refused += 1
            log.warning("events_client_refused", client=self.service, reason=str(error))
            self.say_goodbye(str(error))

    def say_goodbye(self, reason: str, *, closing: bool = False) -> None:
        """End the connection, telling why."""
        if self._transport is not None:
            self._transport.write(json_frame(Kind.GOODBYE, {"reason": reason, "closing": closing}))
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def ping(self) -> None:
        """Ask for a sign of life."""
        if self.access is not None and self._writable:
            self._write(frame(Kind.PING))

    def _handle(self, kind: int, payload: bytes) -> None:
        if self.access is None:
            self._greet(kind, payload)
            return
        handler = self._handlers.get(kind)  # pyright: ignore[reportArgumentType] - a number that is no kind is not found
        if handler is None:
            raise BadFrame(f"a frame of the kind {kind}, which there is not")
        handler(payload)

    def _greet(self, kind: int, payload: bytes) -> None:
        if kind != Kind.HELLO:
            raise BadFrame("the first frame has to say hello")
        hello = json_of(payload, after_id=False)
        if hello.get("protocol") != PROTOCOL:
            raise BadFrame(f"this log speaks version {PROTOCOL} of the protocol")
        access = self._served.credentials.access_of(str(hello.get("token", "")))
        if access is None:
            raise BadFrame("the token is not known to this mesh")
        self.access = access
        self.service = str(hello.get("service", ""))[:100]
        self._frames.max_frame = FrameReader().max_frame
        self._write(
            json_frame(
                Kind.WELCOME,
                {"protocol": PROTOCOL, "access": access.value, "max_event_bytes": self._served.max_event_bytes},
            )
        )

    def _publish(self, payload: bytes) -> None:
        number = id_of(payload)
        publications = decode_messages(payload, self._served.max_event_bytes, self._topics)
        if self.access is not Access.ADMIN and any(is_reserved(one.topic) for one in publications):
            self._fail(number, EventRefused("topics of the mesh itself need the admin token; nothing was published"))
            return
        size = len(payload)
        self._unconfirmed_bytes += size
        self._broker.publish(publications, size, lambda error: self._published(number, size, error))
        self._regulate()

    def _published(self, number: int, size: int, error: Exception | None) -> None:
        self._unconfirmed_bytes -= size
        if self._transport is None:
            return
        if error is not None:
            self._fail(number, error)
        else:
            if not self._confirmed:
                asyncio.get_running_loop().call_soon(self._confirm)
            self._confirmed.append(number)
        self._regulate()

    def _confirm(self) -> None:
        numbers, self._confirmed = self._confirmed, array.array("I")
        if sys.byteorder == "big":
            numbers.byteswap()
        self._write(frame(Kind.CONFIRM, numbers.tobytes()))

    def _ack(self, payload: bytes) -> None:
        found = self._members.get(id_of(payload))
        if found is None:
            return  # it was closed meanwhile
        group, member = found
        offsets = array.array("q")
        try:
            offsets.frombytes(payload[ID_BYTES:])
        except ValueError as error:
            raise BadFrame("acks that are cut off") from error
        if sys.byteorder == "big":
            offsets.byteswap()
        for offset in offsets:
            group.settle(member, offset)
        self._broker.touch(group)

    def _retry(self, payload: bytes) -> None:
        self._settle_otherwise(payload, again=True)

    def _reject(self, payload: bytes) -> None:
        self._settle_otherwise(payload, again=False)

    def _settle_otherwise(self, payload: bytes, *, again: bool) -> None:
        found = self._members.get(id_of(payload))
        offset, after, reason = read_retry(payload)
        if found is None:
            return
        group, member = found
        now = self._broker.now()
        if again:
            group.retry(member, offset, now + after, reason, now)
        else:
            group.reject(member, offset, reason, now)
        self._broker.touch(group)

    def _subscribe(self, payload: bytes) -> None:
        number = id_of(payload)
        if number in self._members or number in self._joining:
            raise BadFrame("a subscription under an id that has one")
        self._joining.add(number)
        self._start(self._join, number, json_of(payload))

    async def _join(self, number: int, content: dict[str, Any]) -> None:
        request = SubscribeRequest.read(content)
        member = Member(request.prefetch, lambda entries: self._deliver(number, entries), request.wants)
        member.listening = self._writable
        group = await join(self._broker, request, member)
        # Whoever went meanwhile, or wants it no more, has left nothing behind.
        if self._transport is None or number not in self._joining:
            self._broker.leave(group, member)
            return
        self._joining.discard(number)
        self._members[number] = (group, member)
        self._write(frame(Kind.SUBSCRIBED, id_bytes(number), _POSITIONS.pack(*group.row(self._broker.head).cursors)))

    def _unsubscribe(self, payload: bytes) -> None:
        number = id_of(payload)
        self._joining.discard(number)
        found = self._members.pop(number, None)
        if found is not None:
            self._broker.leave(*found)

    def _deliver(self, number: int, entries: list[Entry]) -> None:
        pieces: list[bytes] = []
        for entry in entries:
            pieces += pack_delivered(entry.offset, entry.attempts, entry.priority, entry.head, entry.data)
        self._write(frame(Kind.DELIVER, id_bytes(number), *pieces))

    def _call(self, payload: bytes) -> None:
        if self.access is not Access.ADMIN:
            self._fail(id_of(payload), Forbidden("managing events needs the admin token"))
            return
        self._start(self._answer_call, id_of(payload), json_of(payload))

    async def _answer_call(self, number: int, content: dict[str, Any]) -> None:
        self._write(json_frame(Kind.RESULT, await self._served.administrator.answer(content), number))

    def _read(self, payload: bytes) -> None:
        self._start(self._answer_read, id_of(payload), json_of(payload))

    async def _answer_read(self, number: int, content: dict[str, Any]) -> None:
        page = await read_page(self._broker, ReadRequest.read(content))
        self._write(frame(Kind.PAGE, id_bytes(number), *page))

    def _pong(self, payload: bytes) -> None:
        """It was heard; that is all."""

    def _start(self, answer: Any, number: int, content: dict[str, Any]) -> None:
        if self._calls >= _MOST_CALLS:
            # What waits is no more than came in one read: a client that opens a thousand subscriptions is a good one.
            self._waiting_calls.append((answer, number, content))
            self._regulate()
            return
        self._calls += 1
        self._served.tasks.start_soon(self._answer, answer, number, content)

    async def _answer(self, answer: Any, number: int, content: dict[str, Any]) -> None:
        try:
            with anyio.fail_after(30):
                await answer(number, content)
        except MeshError as error:
            self._fail(number, error)
        except TimeoutError:
            self._fail(number, MeshError("the log took too long"))
        except (KeyError, TypeError, ValueError) as error:
            self._fail(number, InvalidInput(f"a request that cannot be read: {error!r}"))
        except Exception as error:
            log.exception("events_call_failed", client=self.service)
            self._fail(number, MeshError(f"the log could not do that: {error}"))
        finally:
            self._calls -= 1
            self._joining.discard(number)
            if self._waiting_calls:
                self._start(*self._waiting_calls.popleft())
            self._regulate()

    def _fail(self, number: int, error: Exception) -> None:
        self._write(json_frame(Kind.FAILED, problem_json(error), number))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _regulate(self) -> None:
        """Read from the client only while it takes its answers, and has not too much underway."""
        if self._transport is None or self._transport.is_closing():
            return
        wanted = self._writable and self._unconfirmed_bytes < _UNCONFIRMED_BYTES and not self._waiting_calls
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not wanted:
            self._transport.pause_reading()
        self._reading = wanted

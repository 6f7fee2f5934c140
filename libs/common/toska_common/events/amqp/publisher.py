"""Publishing with confirms: many messages under way at once, and none more than the window has room for.

A message is sent as soon as there is room, and the call returns once RabbitMQ has confirmed all of its own. When the
connection is lost, those that were not confirmed are sent again on the next one; so one may be doubled, never lost.

The frames are written at once for many messages, and one tally counts the confirms of a call. aiormq's `basic_publish`
is a task, a lock and four futures for each: with it, confirms cost three times as much.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast

import structlog
from aiormq.abc import AbstractChannel, ChannelFrame

from toska_common.events.amqp.envelope import Envelope
from toska_common.events.amqp.errors import CredentialsRefused, Gone, translated
from toska_common.events.amqp.frames import publish_frames
from toska_common.events.amqp.link import Link, closed
from toska_common.events.amqp.refusals import Refusal, read_refusal
from toska_common.events.amqp.topology import Topology
from toska_common.events.amqp.untyped import outgoing
from toska_common.events.errors import EventsUnavailable

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 64 << 10
_PAUSE_S = 0.2
_BELIEVED_S = 1.0
"""How old a channel is before what it refuses may be its own fault, and another one is opened.

RabbitMQ's channels remember who leads the queues that they publish to. One that was opened while a node died may refuse
for ever what every other channel takes. A queue that is full refuses too; then a channel a second is the price.
"""


class Post(NamedTuple):
    """A message, and where it goes."""

    exchange: str
    routing_key: str
    envelope: Envelope
    persistent: bool = True
    priority: int = 1
    expiration_ms: int | None = None


class Publisher:
    """Publishes over one channel, for as long as it runs."""

    def __init__(self, link: Link, topology: Topology, *, window: int, window_bytes: int) -> None:
        self._link = link
        self._topology = topology
        self._window, self._window_bytes = window, window_bytes
        self._flight: _Flight | None = None
        self._changed = asyncio.Event()
        self.problem: EventsUnavailable | None = None

    async def run(self) -> None:
        """Keep a channel, until cancelled."""
        while True:
            pause_s = _PAUSE_S
            try:
                async with self._link.channel(confirms=True) as channel:
                    await self._topology.declare(channel)
                    self.problem = None
                    self._flight = _Flight(channel, self._window, self._window_bytes)
                    self._change()
                    reason = await closed(channel, self._flight.doubted)
                    self._flight.refusal = read_refusal(reason)
                    log.debug("publishing_channel_lost", reason=reason)
                    pause_s = 0.0 if self._flight.doubted.done() else _PAUSE_S
            except Gone as error:
                log.warning("publishing_interrupted", reason=str(error))
            except EventsUnavailable as error:
                self.problem = error
                log.warning("publishing_impossible", reason=error.detail)
            finally:
                if self._flight is not None:
                    self._flight.lose()
                    self._flight = None
                self._change()
            await asyncio.sleep(pause_s)

    async def publish(self, posts: Sequence[Post]) -> None:
        """Return once all are confirmed; waits for the connection for as long as it takes.

        Raises:
            EventsUnavailable: RabbitMQ refused some: a queue of theirs is full or has lost its leader.
            CredentialsRefused: It lets this user publish no such thing.
        """
        while posts:
            flight = await self._ready()
            try:
                posts = await flight.publish(posts)
            except Gone:
                continue
            refusal = flight.refusal
            if refusal is not None and any(refusal.is_of(post.exchange, post.routing_key) for post in posts):
                # Sent again, they would cost everybody who publishes here the channel, again and again.
                raise CredentialsRefused(f"RabbitMQ does not let this user publish: {refusal.reason}")

    async def ready(self) -> None:
        """Wait until it can publish.

        Raises:
            EventsUnavailable: It cannot: what it needs is not what it should be, or it may not use it.
        """
        await self._ready()

    async def _ready(self) -> "_Flight":
        while self._flight is None:
            await self._changed.wait()
            if self._flight is None and self.problem is not None:
                raise self.problem
        return self._flight

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Flight:
    """What is under way on one channel. Nobody else publishes on it, so it counts the delivery tags itself."""

    def __init__(self, channel: AbstractChannel, window: int, window_bytes: int) -> None:
        self._channel = channel
        self._window, self._window_bytes = window, window_bytes
        self._largest = channel.connection.connection_tune.frame_max or (128 << 10)
        self._confirmations = cast("dict[int, _Tally]", channel.confirmations)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - of its only implementation
        self._sending = asyncio.Lock()
        self._outgoing = outgoing(channel)
        self._tag = 0
        self._count = self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lost = False
        loop = asyncio.get_running_loop()
        self._opened_at = loop.time()
        self.doubted: asyncio.Future[str] = loop.create_future()
        """Done once the channel is better replaced by another."""
        self.refusal: Refusal | None = None
        """Why the channel was closed, if that was for what somebody has published."""

    async def publish(self, posts: Sequence[Post]) -> Sequence[Post]:
        """Those that were not confirmed before the channel was lost.

        Raises:
            EventsUnavailable: Some were refused.
        """
        first = 0
        tallies: list[_Tally] = []
        while first < len(posts):
            await self._room()
            tally = _Tally(self, posts[first : first + self._fitting(posts, first)])
            if self._lost or not await self._send(tally):
                break
            tallies.append(tally)
            first += len(tally.posts)
        unconfirmed: list[Post] = []
        for tally in tallies:
            await tally.ended
            unconfirmed += tally.missing
        return [*unconfirmed, *posts[first:]]

    def lose(self) -> None:
        """The channel is gone: what was not confirmed has to be sent again."""
        self._lost = True
        tallies: dict[_Tally, list[int]] = {}
        for tag, tally in self._confirmations.items():
            tallies.setdefault(tally, []).append(tag)
        self._confirmations.clear()
        for tally, tags in tallies.items():
            tally.lose(tags)
        while self._waiting:
            _wake(self._waiting.popleft())

    def doubt(self) -> None:
        """The channel has refused something."""
        if asyncio.get_running_loop().time() - self._opened_at >= _BELIEVED_S and not self.doubted.done():
            self.doubted.set_result("it has refused what another channel may take")

    def settled(self, count: int, size: int) -> None:
        """So much is no longer under way."""
        self._count -= count
        self._bytes -= size
        while self._waiting and self._has_room():
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                break

    def _has_room(self) -> bool:
        return self._count < self._window and self._bytes < self._window_bytes

    async def _room(self) -> None:
        # Whoever waits has its turn before whoever comes.
        if self._lost or (self._has_room() and not self._waiting):
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done():  # the place was given, and goes to the next
                self.settled(0, 0)
            raise

    def _fitting(self, posts: Sequence[Post], first: int) -> int:
        count = size = 0
        most = self._window - self._count
        for post in posts[first : first + max(1, most)]:
            size += post.envelope.size
            count += 1
            if size >= _CHUNK_BYTES or self._bytes + size >= self._window_bytes:
                break
        return max(1, count)

    async def _send(self, tally: "_Tally") -> bool:
        payload = b"".join(
            publish_frames(
                self._channel.number, post.exchange, post.routing_key, post.envelope,
                largest=self._largest, persistent=post.persistent, priority=post.priority,
                expiration_ms=post.expiration_ms,
            )
            for post in tally.posts
        )  # fmt: skip
        async with self._sending:
            # Counted after it was put, so that a caller that is cancelled here leaves no gap. No confirm comes between.
            with translated("publishing"):
                await self._outgoing.put(ChannelFrame(payload=payload, should_close=False))
            if self._lost:
                return False
            tally.first = self._tag + 1
            for _ in tally.posts:
                self._tag += 1
                self._confirmations[self._tag] = tally
            self._count += len(tally.posts)
            self._bytes += tally.size
        return True


class _Tally:
    """Stands for the confirmations of one chunk, where aiormq has one future for each message."""

    def __init__(self, flight: _Flight, posts: Sequence[Post]) -> None:
        self._flight = flight
        self.posts = posts
        self.first = 0
        self.size = sum(post.envelope.size for post in posts)
        self.missing: list[Post] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended.add_done_callback(_heard)
        self._left = len(posts)
        self._refused = 0

    # What aiormq asks of a future.

    def set_result(self, _: object) -> None:
        self._one()

    def set_exception(self, _: BaseException) -> None:
        self._refused += 1
        self._one()

    def done(self) -> bool:
        return False

    def lose(self, tags: list[int]) -> None:
        """The rest will not be confirmed."""
        self.missing = [self.posts[tag - self.first] for tag in tags]
        self._left = 0
        self._finish()

    def _one(self) -> None:
        self._left -= 1
        if not self._left:
            self._flight.settled(len(self.posts), self.size)
            self._finish()

    def _finish(self) -> None:
        if self.ended.done():
            return
        if self._refused:
            self._flight.doubt()
            self.ended.set_exception(EventsUnavailable(f"RabbitMQ refused {self._refused} of {len(self.posts)} events"))
        else:
            self.ended.set_result(None)


def _heard(ended: "asyncio.Future[None]") -> None:
    # Whoever waits for several hears of the first that failed alone.
    if not ended.cancelled():
        ended.exception()


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)

"""What carries events: the protocol that the embedded log, RabbitMQ and Redis each keep, and the words it is said in.

Semantics that every durable transport keeps (Redis's is lossy, and says so by `durable`):

- Opening one returns at once and connects in the background, for as long as it is open; `publish` and `subscribe` wait
  for the connection, within the time that their caller gives them.
- `publish` returns once every event of the call is on disk (or on a quorum of brokers); if it raises, each of them may
  or may not have been published, so a publisher that tries again may double one: `(source, id)` tells.
- A group gets each event that matches any of its patterns at least once, from when the group was first subscribed (or
  from where its `start` says), also while none of its members is there. Members share them.
- Without a group every subscription is its own, from now on or its `start`, and forgotten when it closes.
- An event that was delivered and not acked comes again, to any member, when its consumer goes. Its `attempt` grows.
- With `ordered`, events of one key are delivered one after the other, in the order in which they were published, and
  the next only when the one before was acked or rejected, also across members; events without a key keep no order.
- Higher priorities are delivered first; within one, in the order of publishing but for retries.
- An event that expired before it was delivered is dropped; one that is scheduled is delivered no earlier.
- A rejected event, or one over `attempts`, is kept with the group's dead letters, together with the reason.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

from toska_common.events.event import Event
from toska_common.events.retrying import Retrying

DEFAULT_MAX_BYTES = 1 << 20
"""Most bytes of an event's data; brokers take more, and suffer."""


class Priority(IntEnum):
    """Which of two waiting events goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins: exactly one of these, or none for from now on.

    Attributes:
        beginning: With the oldest event that is kept.
        offset: With this offset of the transport's log, included.
        time: With the first event stored at or after this moment.
    """

    beginning: bool = False
    offset: int | None = None
    time: datetime | None = None

    def __post_init__(self) -> None:
        if sum((self.beginning, self.offset is not None, self.time is not None)) > 1:
            raise ValueError("a start is the beginning, an offset or a time, and not several of them")

    @property
    def is_now(self) -> bool:
        """Whether nothing of the past is wanted."""
        return not self.beginning and self.offset is None and self.time is None


NOW = Start()
BEGINNING = Start(beginning=True)


@dataclass(frozen=True, slots=True)
class Message:
    """An event, and how it wants to travel."""

    event: Event
    priority: Priority = Priority.NORMAL
    deliver_at: datetime | None = None
    expires_at: datetime | None = None


def ignore_gap() -> None:
    """For those who can do without what they missed."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What somebody wants.

    Attributes:
        patterns: Topics, as `toska_common.events.topics` has them; at least one.
        group: Who shares the work; `None` for a subscription of one's own.
        where: Attributes by CloudEvents name that an event must have, as they are there; others are acked unseen.
        start: For a group that is new, or none.
        ordered: Keep the order of events with the same key.
        partitions: With `ordered`: over how many lanes keys are spread; a group's number is that of its first member.
        sequential: Without a group: in the log's own order, whatever priorities events have, so that their offsets say
            what is still to come. For transports with offsets.
        prefetch: Most events that are delivered and not settled.
        attempts: Deliveries after which an event is poison, whatever happened to them; a dead consumer's count as well.
        on_gap: Without a group: called when it stands again after a loss and events may have been missed meanwhile.
            A transport that reads them from its log instead does not call it.
    """

    patterns: tuple[str, ...]
    group: str | None = None
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    start: Start = NOW
    ordered: bool = False
    partitions: int = 8
    sequential: bool = False
    prefetch: int = 64
    retrying: Retrying = field(default_factory=Retrying)
    on_gap: Callable[[], None] = field(default=ignore_gap, compare=False)

    @property
    def attempts(self) -> int:
        """Deliveries after which an event is poison."""
        return self.retrying.attempts

    def wants(self, event: Event) -> bool:
        """Whether the event has the attributes that are asked for."""
        return all(event.attribute(name) == value for name, value in self.where.items())


class Delivery(Protocol):
    """An event in the hands of a consumer, who settles it in one of three ways; a second one does nothing.

    Attributes:
        attempt: How often the group was given it, this time included; from 1.
        offset: Its place in the transport's log, where the transport has one.
    """

    @property
    def event(self) -> Event: ...

    @property
    def attempt(self) -> int: ...

    @property
    def offset(self) -> int | None: ...

    async def ack(self) -> None:
        """It was handled. May return before that is on disk: then it can come once more."""
        ...

    async def retry(self, after: timedelta, reason: str) -> None:
        """Hand it out again, no earlier than `after`; with `ordered`, its key waits."""
        ...

    async def reject(self, reason: str) -> None:
        """Keep it with the dead letters."""
        ...


class Consumer(Protocol):
    """A live subscription: deliveries, for as long as it is open, over any number of reconnections."""

    def __aiter__(self) -> AsyncIterator[Delivery]: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """An event of the log, read back."""

    offset: int
    event: Event
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How a topic is kept; one that nobody created has the defaults.

    Attributes:
        max_age: Events older than this may be forgotten, once every group had them.
        max_bytes: The same by their size; 0 for no bound but the log's own.
        time_to_live: Expiry of events that were published without one.
        replayable: Kept for reading again: all are in the embedded log, on RabbitMQ those of topics with a stream.
    """

    name: str
    max_age: timedelta | None = None
    max_bytes: int = 0
    time_to_live: timedelta | None = None
    replayable: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic and what is in it; counts are of what is kept, `published` of all since the transport began to count.

    A figure that the transport cannot know is `None`.
    """

    settings: TopicSettings
    events: int | None
    bytes: int | None
    published: int | None
    first_offset: int | None
    last_offset: int | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group and how far it is; a figure that the transport cannot know is `None`.

    Attributes:
        lag: Events that it has yet to be given.
        unsettled: Given and not settled.
        delayed: Waiting for their time: retries and scheduled ones.
        oldest_at: When the oldest event that it has yet to be given was stored.
    """

    name: str
    patterns: tuple[str, ...]
    members: int
    lag: int
    unsettled: int | None
    delayed: int
    dead: int
    delivered: int | None
    acked: int | None
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group could not handle."""

    id: str
    group: str
    event: Event
    reason: str
    attempts: int
    died_at: datetime


class Transport(Protocol):
    """An open connection to what carries events.

    Raises (every method):
        EventsUnavailable: It is away, and did not come back within the call's time.
    """

    @property
    def durable(self) -> bool:
        """Whether it keeps the semantics above; Redis pub/sub loses what nobody is there for."""
        ...

    @property
    def connected(self) -> bool:
        """Whether it is there now."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store events, and return when they are safe.

        Raises:
            EventTooLarge: One is; none was published.
            LogFull: There is no room; none was published.
        """
        ...

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[Consumer]:
        """Open a subscription; entered once events from now on are sure to come."""
        ...

    def read(self, patterns: Sequence[str], start: Start, *, limit: int | None = None) -> AsyncGenerator[Stored]:
        """What is kept, from `start` up to what is there when reading begins, by offset."""
        ...

    @property
    def administration(self) -> "Administration":
        """For operators."""
        ...


class Administration(Protocol):
    """A transport's topics, groups and dead letters, for operators."""

    async def topics(self) -> list[TopicState]: ...

    async def put_topic(self, settings: TopicSettings) -> None: ...

    async def delete_topic(self, name: str) -> None:
        """Forget a topic, its settings and the events that are kept of it, also those that groups have yet to get.

        Raises:
            UnknownTopic: There is none.
        """
        ...

    async def groups(self) -> list[GroupState]: ...

    async def delete_group(self, name: str) -> None:
        """Forget a group, and what it has yet to be given.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        ...

    async def seek(self, group: str, start: Start) -> None:
        """Give a group everything from `start` on, again or not; what it had in hand is settled as acked.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        ...

    async def dead_letters(self, group: str | None = None, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """By id, those after `after`; there are more until there is none, for large ones make a page shorter."""
        ...

    async def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002 - what it is called
        """One of them.

        Raises:
            UnknownDeadLetter: There is none.
        """
        ...

    async def redrive(self, ids: Sequence[str]) -> int:
        """Give them to their groups again, with fresh attempts; returns how many there were."""
        ...

    async def purge(self, ids: Sequence[str]) -> int:
        """Forget them; returns how many there were."""
        ...

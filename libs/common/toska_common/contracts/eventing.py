"""The events service's REST API (`/api/v1/events…`): topics, groups, dead letters, and publishing over HTTP."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from toska_common.contracts import Contract, Document
from toska_common.events.event import EXTENSION, utc
from toska_common.units import Duration

Offset = Annotated[int, Field(ge=0, lt=2**62)]
"""A place in a transport's log."""
Moment = Annotated[datetime, AfterValidator(utc)]
"""A moment in UTC; one without a zone is taken to be."""

PriorityName = Literal["low", "normal", "high"]


class PublishRequest(Document):
    """An event, for those who do not care for CloudEvents."""

    topic: str = Field(description="Dotted words: orders.order.placed")
    data: Any = None
    key: str | None = Field(default=None, max_length=255, description="Events of one key keep their order")
    subject: str | None = Field(default=None, max_length=4096)
    version: int = Field(default=1, ge=1, le=1_000_000, description="Of the payload's schema")
    attributes: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=32)
    priority: PriorityName = "normal"
    delay: Duration = Field(default=timedelta(0), ge=timedelta(0), le=timedelta(days=365))
    deliver_at: Moment | None = None
    expires_in: Duration | None = Field(default=None, gt=timedelta(0))

    @model_validator(mode="after")
    def _one_time(self) -> "PublishRequest":
        if self.delay and self.deliver_at is not None:
            raise ValueError("delay and deliver_at say the same thing; give one of them")
        return self


class Published(Contract):
    """What was published, in the order of the request."""

    ids: tuple[str, ...]


class TopicDraft(Document):
    """How a topic is to be kept."""

    max_age: Duration | None = Field(default=None, gt=timedelta(0), description="Older events may be forgotten")
    max_bytes: int = Field(default=0, ge=0, description="As may what is beyond this size; 0 for no bound of its own")
    time_to_live: Duration | None = Field(default=None, gt=timedelta(0), description="Of events that name none")
    replayable: bool = Field(default=True, description="Kept for reading again")
    description: str = Field(default="", max_length=1024)


class TopicEntry(Contract):
    """A topic and what is kept of it; null is what the transport cannot tell."""

    name: str
    max_age_seconds: float | None
    max_bytes: int
    time_to_live_seconds: float | None
    replayable: bool
    description: str
    events: int | None
    bytes: int | None
    published: int | None
    first_offset: int | None
    last_offset: int | None
    last_at: datetime | None


class GroupEntry(Contract):
    """A group and how far it is; null is what the transport cannot tell."""

    name: str
    topics: tuple[str, ...]
    members: int
    lag: int = Field(description="Events that it has yet to be given")
    unsettled: int | None = Field(description="Given, and not settled")
    delayed: int = Field(description="Waiting for their time: retries and scheduled ones")
    dead: int
    delivered: int | None
    acked: int | None
    oldest_at: datetime | None = Field(description="When the oldest event was stored that it has yet to be given")


class StartDraft(Document):
    """Where to begin: one of these."""

    beginning: bool = False
    offset: Offset | None = None
    time: Moment | None = None
    now: bool = False

    @model_validator(mode="after")
    def _one(self) -> "StartDraft":
        given = (self.beginning, self.offset is not None, self.time is not None, self.now)
        if sum(given) != 1:
            raise ValueError("say one of beginning, offset, time and now")
        return self


class StoredEntry(Contract):
    """An event of the log, as CloudEvents' JSON."""

    offset: int
    stored_at: datetime
    event: Mapping[str, Any]


class DeadLetterEntry(Contract):
    """An event that a group could not handle."""

    id: str
    group: str
    reason: str
    attempts: int
    died_at: datetime
    event: Mapping[str, Any]


class DeadLetterChoice(Document):
    """Which dead letters: by id, or all of a group."""

    ids: tuple[str, ...] = Field(default=(), max_length=10_000)
    group: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "DeadLetterChoice":
        if bool(self.ids) == bool(self.group):
            raise ValueError("say either ids or a group")
        return self


class Count(Contract):
    """How many there were."""

    count: int


class StreamQuery(Document):
    """Which events somebody wants to be told of, as they come."""

    topic: tuple[str, ...] = Field(min_length=1, max_length=64, description="Patterns: orders.# or mesh.*.registered")
    group: str | None = Field(
        default=None, description="Share the group's work: each event goes to one of its members. Needs a token"
    )
    where: tuple[str, ...] = Field(
        default=(), max_length=16, description="Attributes that an event must have: region=eu"
    )
    offset: Offset | None = Field(default=None, description="From this offset on; of a group, when it is new")
    since: Moment | None = Field(default=None, description="From what was stored at this moment or later")
    beginning: bool = Field(default=False, description="From the oldest event that is kept")

    @field_validator("where")
    @classmethod
    def _pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            name, separator, _ = pair.partition("=")
            if not separator or not EXTENSION.fullmatch(name):
                raise ValueError("say name=value; names of attributes are a-z and 0-9, 20 characters at most")
        return pairs

    @model_validator(mode="after")
    def _one_start(self) -> "StreamQuery":
        if sum((self.offset is not None, self.since is not None, self.beginning)) > 1:
            raise ValueError("say one of offset, since and beginning")
        return self


class SocketQuery(StreamQuery):
    """The same over a WebSocket."""

    ack: Literal["auto", "manual"] = Field(
        default="auto", description="manual: the client settles every event, which takes a group"
    )
    prefetch: int = Field(default=64, ge=1, le=1000, description="Most events that are sent and not settled")
    settle_within: Duration = Field(
        default=timedelta(seconds=60),
        gt=timedelta(0),
        le=timedelta(hours=1),
        description="With ack=manual: an event that is not settled by then is handed out again",
    )

    @model_validator(mode="after")
    def _settled_by_a_group(self) -> "SocketQuery":
        if self.ack == "manual" and self.group is None:
            raise ValueError("ack=manual needs a group: who is alone has nobody to hand an event to")
        return self


class Settlement(Document):
    """What a client of a WebSocket says of an event that it was sent: one of `ack`, `retry` and `reject`, by its id."""

    ack: int | None = None
    retry: int | None = None
    reject: int | None = None
    after: Duration | None = Field(default=None, ge=timedelta(0), le=timedelta(days=1), description="Of retry")
    reason: str = Field(default="", max_length=500, description="Of retry and reject, for who looks at dead letters")

    @model_validator(mode="after")
    def _one(self) -> "Settlement":
        if sum(id_ is not None for id_ in (self.ack, self.retry, self.reject)) != 1:
            raise ValueError("say one of ack, retry and reject")
        if self.after is not None and self.retry is None:
            raise ValueError("after belongs to retry")
        if self.reason and self.ack is not None:
            raise ValueError("reason belongs to retry and reject")
        return self


class SocketEvent(Contract):
    """An event as a WebSocket sends it; `id` is what the client settles it by, on this connection."""

    id: int
    attempt: int
    offset: int | None
    event: Mapping[str, Any]

"""What the frames with JSON in them say, read and written in one place for both sides of the socket."""

import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from toska_common.errors import Conflict, Forbidden, InvalidInput, MeshError, NotFound
from toska_common.events.embedded.frames import ID_BYTES, BadFrame
from toska_common.events.embedded.records import decode_event, encode_head, microseconds, moment
from toska_common.events.errors import (
    EventRefused,
    EventsUnavailable,
    EventTooLarge,
    LogFull,
    UnknownDeadLetter,
    UnknownGroup,
    UnknownTopic,
)
from toska_common.events.topics import check_group, check_pattern
from toska_common.events.transport import DeadLetter, GroupState, Start, Subscription, TopicSettings, TopicState

if TYPE_CHECKING:
    from toska_common.events.event import Event

MAX_PREFETCH = 10_000
MAX_ATTEMPTS = 1_000_000
_MAX_NUMBER = 2**62
_MAX_REASON = 2000
_RETRY = struct.Struct("<qq")


class Carried(Protocol):
    """Something with an event's bytes in it."""

    @property
    def head(self) -> bytes: ...

    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a subscription of nobody else's was when its connection broke.

    Attributes:
        cursors: By priority, the last offset that it was given.
        open: Offsets up to there that it has not settled, with their attempts.
        since: When it was heard of last; what was scheduled for later is scheduled again.
    """

    cursors: tuple[int, int, int]
    open: tuple[tuple[int, int], ...]
    since: int


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """A SUBSCRIBE frame's content."""

    patterns: tuple[str, ...]
    group: str | None = None
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    start: Start = field(default_factory=Start)
    ordered: bool = False
    prefetch: int = 64
    attempts: int = 8
    resume: Resumed | None = None
    sequential: bool = False

    @classmethod
    def of(cls, subscription: Subscription, resume: Resumed | None) -> "SubscribeRequest":
        """What is asked for a subscription."""
        return cls(
            tuple(subscription.patterns),
            subscription.group,
            dict(subscription.where),
            subscription.start,
            subscription.ordered,
            min(subscription.prefetch, MAX_PREFETCH),
            subscription.attempts,
            resume,
            subscription.sequential,
        )

    def json(self) -> dict[str, Any]:
        """As it is sent."""
        content: dict[str, Any] = {
            "patterns": self.patterns,
            "group": self.group,
            "where": self.where,
            "start": start_json(self.start),
            "ordered": self.ordered,
            "prefetch": self.prefetch,
            "attempts": self.attempts,
            "sequential": self.sequential,
        }
        if self.resume is not None:
            content["resume"] = [self.resume.cursors, self.resume.open, self.resume.since]
        return content

    @classmethod
    def read(cls, content: dict[str, Any]) -> "SubscribeRequest":
        """As it came.

        Raises:
            InvalidInput: A part is not what it should be.
            TypeError, ValueError, KeyError: The same.
        """
        patterns = tuple(check_pattern(str(pattern)) for pattern in content["patterns"])
        prefetch, attempts = int(content["prefetch"]), int(content["attempts"])
        if not patterns or not 1 <= prefetch <= MAX_PREFETCH or not 1 <= attempts <= MAX_ATTEMPTS:
            raise InvalidInput(
                f"a subscription has patterns, a prefetch of 1 to {MAX_PREFETCH}, and 1 to {MAX_ATTEMPTS} attempts"
            )
        group = content.get("group")
        resume = content.get("resume")
        return cls(
            patterns,
            None if group is None else check_group(str(group)),
            {str(name): str(value) for name, value in dict(content.get("where") or {}).items()},
            read_start(content.get("start")),
            bool(content.get("ordered")),
            prefetch,
            attempts,
            None if resume is None else _read_resumed(resume),
            bool(content.get("sequential")) and group is None,
        )

    @property
    def wants(self) -> Callable[[Carried], bool] | None:
        """Tells whether an event has the attributes that are asked for; `None` if all have."""
        if not self.where:
            return None
        wanted = Subscription(self.patterns, where=self.where)
        return lambda carried: wanted.wants(decode_event(carried.head, b""))


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A READ frame's content: the first has a `start`, those that follow `after` and `upto`, of the page before."""

    patterns: tuple[str, ...]
    start: Start = field(default_factory=Start)
    after: int | None = None
    upto: int | None = None
    limit: int | None = None

    def json(self) -> dict[str, Any]:
        """As it is sent."""
        return {
            "patterns": self.patterns,
            "start": start_json(self.start),
            "after": self.after,
            "upto": self.upto,
            "limit": self.limit,
        }

    @classmethod
    def read(cls, content: dict[str, Any]) -> "ReadRequest":
        """As it came.

        Raises:
            InvalidInput: A part is not what it should be.
            TypeError, ValueError, KeyError: The same.
        """
        numbers = {
            name: None if content.get(name) is None else int(content[name]) for name in ("after", "upto", "limit")
        }
        patterns = tuple(check_pattern(str(pattern)) for pattern in content["patterns"])
        return cls(patterns, read_start(content.get("start")), **numbers)


def start_json(start: Start) -> dict[str, Any]:
    """A start, as it is sent."""
    at = None if start.time is None else microseconds(start.time)
    return {"beginning": start.beginning, "offset": start.offset, "time": at}


def read_start(content: Any) -> Start:
    """A start, as it came."""
    content = dict(content or {})
    offset, time = content.get("offset"), content.get("time")
    return Start(
        bool(content.get("beginning")),
        None if offset is None else int(offset),
        None if time is None else moment(int(time)),
    )


def pack_retry(offset: int, after: timedelta, reason: str) -> bytes:
    """Of a RETRY or REJECT frame, what follows the id."""
    wait = max(after // timedelta(microseconds=1), 0)
    return _RETRY.pack(offset, wait) + reason[:_MAX_REASON].encode(errors="replace")


def read_retry(payload: bytes) -> tuple[int, int, str]:
    """Offset, microseconds and reason of a RETRY or REJECT frame.

    Raises:
        BadFrame: It is cut off.
    """
    if len(payload) < ID_BYTES + _RETRY.size:
        raise BadFrame("a retry that is cut off")
    offset, after = _RETRY.unpack_from(payload, ID_BYTES)
    reason = payload[ID_BYTES + _RETRY.size :].decode(errors="replace")[:_MAX_REASON]
    return offset, min(max(after, 0), 366 * 86_400_000_000), reason


_ERRORS: dict[str, type[MeshError]] = {
    kind.code: kind
    for kind in (
        Conflict, EventRefused, EventTooLarge, EventsUnavailable, Forbidden, InvalidInput, LogFull, NotFound,
        UnknownDeadLetter, UnknownGroup, UnknownTopic,
    )
}  # fmt: skip


def problem_json(error: Exception) -> dict[str, Any]:
    """An error, as it is sent."""
    if isinstance(error, MeshError):
        return {"code": error.code, "detail": error.detail, "extensions": error.extensions}
    return {"code": MeshError.code, "detail": str(error), "extensions": {}}


def error_of(content: Mapping[str, Any]) -> MeshError:
    """An error, as it came."""
    kind = _ERRORS.get(str(content.get("code")), MeshError)
    return kind(str(content.get("detail", "")), **dict(content.get("extensions") or {}))


def event_json(event: "Event") -> dict[str, str]:
    """An event in JSON."""
    return carried_json(encode_head(event), event.data)


def carried_json(head: bytes, data: bytes) -> dict[str, str]:
    """The same, of its bytes."""
    return {"head": b64encode(head).decode(), "data": b64encode(data).decode()}


def read_event(content: Mapping[str, str]) -> "Event":
    """An event of JSON."""
    return decode_event(b64decode(content["head"]), b64decode(content["data"]))


def settings_json(settings: TopicSettings) -> dict[str, Any]:
    """How a topic is kept, in JSON."""
    return {
        "name": settings.name,
        "max_age": _span(settings.max_age),
        "max_bytes": settings.max_bytes,
        "time_to_live": _span(settings.time_to_live),
        "replayable": settings.replayable,
        "description": settings.description,
    }


def read_settings(content: Mapping[str, Any]) -> TopicSettings:
    """The other way round."""
    return TopicSettings(
        str(content["name"]),
        _read_span(content.get("max_age")),
        int(content.get("max_bytes", 0)),
        _read_span(content.get("time_to_live")),
        bool(content.get("replayable", True)),
        str(content.get("description", "")),
    )


def topic_json(state: TopicState) -> dict[str, Any]:
    """A topic's state in JSON."""
    return {
        "settings": settings_json(state.settings),
        "counts": [state.events, state.bytes, state.published, state.first_offset, state.last_offset],
        "last_at": _at(state.last_at),
    }


def read_topic(content: Mapping[str, Any]) -> TopicState:
    """The other way round."""
    events, size, published, first, last = content["counts"]
    return TopicState(
        read_settings(content["settings"]), events, size, published, first, last, _read_at(content["last_at"])
    )


def group_json(state: GroupState) -> dict[str, Any]:
    """A group's state in JSON."""
    return {
        "name": state.name,
        "patterns": state.patterns,
        "counts": [
            state.members, state.lag, state.unsettled, state.delayed, state.dead, state.delivered, state.acked,
        ],
        "oldest_at": _at(state.oldest_at),
    }  # fmt: skip


def read_group(content: Mapping[str, Any]) -> GroupState:
    """The other way round."""
    counts: Sequence[int] = content["counts"]
    members, lag, unsettled, delayed, dead, delivered, acked = counts
    return GroupState(
        content["name"],
        tuple(content["patterns"]),
        members,
        lag,
        unsettled,
        delayed,
        dead,
        delivered,
        acked,
        _read_at(content["oldest_at"]),
    )


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter in JSON."""
    return {
        "id": letter.id,
        "group": letter.group,
        "event": event_json(letter.event),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at": _at(letter.died_at),
    }


def read_letter(content: Mapping[str, Any]) -> DeadLetter:
    """The other way round."""
    return DeadLetter(
        content["id"],
        content["group"],
        read_event(content["event"]),
        content["reason"],
        content["attempts"],
        moment(content["died_at"]),
    )


def _read_resumed(content: Any) -> Resumed:
    (low, normal, high), open_, since = content
    return Resumed(
        (_number(low), _number(normal), _number(high)),
        tuple((_number(offset), min(_number(attempts), MAX_ATTEMPTS)) for offset, attempts in open_[:MAX_PREFETCH]),
        _number(since),
    )


def _number(content: Any) -> int:
    # SQLite takes no larger ones, and nothing of ours sends them.
    return min(max(int(content), 0), _MAX_NUMBER)


def _span(span: timedelta | None) -> int | None:
    return None if span is None else span // timedelta(microseconds=1)


def _read_span(content: int | None) -> timedelta | None:
    return None if content is None else timedelta(microseconds=content)


def _at(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)


def _read_at(content: int | None) -> datetime | None:
    return None if content is None else moment(content)

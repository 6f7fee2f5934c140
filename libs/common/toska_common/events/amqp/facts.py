"""What is known of topics and groups, which AMQP itself cannot list: facts by kind and name, of which the last is true.

They are records of a stream that everybody reads from its beginning, so all agree on one order. A stream forgets its
oldest segments in the end; a fact whose record grows old is therefore told again (`fading`). Pure.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, cast

from toska_common.events.transport import TopicSettings

Kind = Literal["topic", "group"]

KEPT_RECORDS = 20_000
"""So many are sure to be kept: a record has 2 KiB at most, and the stream 64 MiB."""

MAX_BYTES = 2048
"""Of a record."""


@dataclass(frozen=True, slots=True)
class TopicFact:
    """A topic that was published to, or created.

    Attributes:
        deleted_at: Events that were published before this (milliseconds since 1970) are forgotten.
        here: Whether it is there; a topic that was deleted may come back.
    """

    settings: TopicSettings
    deleted_at: int = 0
    here: bool = True


@dataclass(frozen=True, slots=True)
class GroupFact:
    """A group that was subscribed.

    Attributes:
        lanes: How many it has if it is ordered; else 0.
        waits: After which waits (milliseconds) it has tried again, so that what waits can be counted.
    """

    name: str
    patterns: tuple[str, ...]
    lanes: int = 0
    waits: tuple[int, ...] = ()
    here: bool = True


Fact = TopicFact | GroupFact


@dataclass(slots=True)
class Facts:
    """The last of each, and where it stands in the stream."""

    topics: dict[str, TopicFact] = field(default_factory=dict[str, TopicFact])
    groups: dict[str, GroupFact] = field(default_factory=dict[str, GroupFact])
    last: int = -1
    _places: dict[tuple[Kind, str], int] = field(default_factory=dict[tuple[Kind, str], int])

    def learn(self, offset: int, fact: Fact | None) -> None:
        """A record was read; those that say nothing we know are only counted."""
        self.last = max(self.last, offset)
        if isinstance(fact, TopicFact):
            self.topics[fact.settings.name] = fact
            self._places["topic", fact.settings.name] = offset
        elif isinstance(fact, GroupFact):
            self.groups[fact.name] = fact
            self._places["group", fact.name] = offset

    def fading(self) -> Iterable[Fact]:
        """Those whose record will be forgotten before long."""
        for (kind, name), offset in list(self._places.items()):
            if offset < self.last - KEPT_RECORDS:
                yield self.topics[name] if kind == "topic" else self.groups[name]

    def topic(self, name: str) -> TopicFact | None:
        """A topic that is there."""
        fact = self.topics.get(name)
        return fact if fact is not None and fact.here else None

    def group(self, name: str) -> GroupFact | None:
        """A group that is there."""
        fact = self.groups.get(name)
        return fact if fact is not None and fact.here else None

    def forgotten(self, topic: str, at: int) -> bool:
        """Whether the topic was deleted after an event of it was published."""
        fact = self.topics.get(topic)
        return fact is not None and at < fact.deleted_at


def write(fact: Fact) -> bytes:
    """A record."""
    if isinstance(fact, GroupFact):
        content: dict[str, Any] = {
            "group": fact.name,
            "patterns": fact.patterns,
            "lanes": fact.lanes,
            "waits": fact.waits,
            "here": fact.here,
        }
    else:
        settings = fact.settings
        content = {
            "topic": settings.name,
            "max_age": _seconds(settings.max_age),
            "max_bytes": settings.max_bytes,
            "ttl": _seconds(settings.time_to_live),
            "replayable": settings.replayable,
            "description": settings.description,
            "deleted_at": fact.deleted_at,
            "here": fact.here,
        }
    return json.dumps(content, separators=(",", ":")).encode()


def read(record: bytes) -> Fact | None:
    """What a record says; `None` for one of a later version, or of somebody else."""
    try:
        content: Any = json.loads(record)
        if not isinstance(content, dict):
            return None
        return _read(cast("Mapping[str, Any]", content))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _read(content: Mapping[str, Any]) -> Fact | None:
    if "group" in content:
        return GroupFact(
            str(content["group"]),
            tuple(map(str, content["patterns"])),
            int(content["lanes"]),
            tuple(map(int, content["waits"])),
            bool(content["here"]),
        )
    settings = TopicSettings(
        name=str(content["topic"]),
        max_age=_duration(content["max_age"]),
        max_bytes=int(content["max_bytes"]),
        time_to_live=_duration(content["ttl"]),
        replayable=bool(content["replayable"]),
        description=str(content["description"]),
    )
    return TopicFact(settings, int(content["deleted_at"]), bool(content["here"]))


def with_wait(fact: GroupFact, wait_ms: int) -> GroupFact:
    """The group once it also tries again after this wait."""
    return replace(fact, waits=tuple(sorted({*fact.waits, wait_ms})))


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)

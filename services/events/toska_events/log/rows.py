"""What passes between the log's file and whoever uses it. Moments are microseconds of wall time, 0 for none."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """An event as the log holds it."""

    offset: int
    topic: int
    priority: int
    at: int
    due: int
    expires: int
    head: bytes
    data: bytes


@dataclass(slots=True)
class Topic:
    """A topic that something was published to, or that somebody created."""

    id: int
    name: str
    settings: str = ""
    published: int = 0
    events: int = 0
    bytes: int = 0
    last_at: int = 0
    time_to_live: int = 0


class Held(NamedTuple):
    """An event that a group is given again, or for the first time, no earlier than `due`.

    `blocks` says that its key waits for it: it was handed out before, and its group keeps order.
    """

    group: int
    offset: int
    due: int
    attempts: int
    blocks: bool
    reason: str


class Dead(NamedTuple):
    """An event that a group could not handle, with a copy of it: it outlives what is kept of its topic."""

    group: int
    offset: int
    topic: str
    head: bytes
    data: bytes
    reason: str
    attempts: int
    died_at: int


class Letter(NamedTuple):
    """A dead letter that is stored."""

    id: int
    group: str
    head: bytes
    data: bytes
    reason: str
    attempts: int
    died_at: int


@dataclass(slots=True)
class GroupRow:
    """A group: what it wants, and how far it is.

    Attributes:
        cursors: By priority, the offset up to which events are settled, open or held.
        open: Offsets up to the cursors that are neither settled nor held, with their attempts so far.
        sequential: Neither priorities nor keys count; of one that is nobody else's, and so not stored.
    """

    id: int
    name: str
    patterns: tuple[str, ...]
    ordered: bool
    attempts: int
    cursors: tuple[int, int, int]
    delivered: int = 0
    acked: int = 0
    open: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    sequential: bool = False


@dataclass(slots=True)
class Changes:
    """What has changed in groups, to be stored all at once."""

    groups: list[GroupRow] = field(default_factory=list[GroupRow])
    held: list[Held] = field(default_factory=list[Held])
    released: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Group and offset of what is held no longer."""
    dead: list[Dead] = field(default_factory=list[Dead])

    def __bool__(self) -> bool:
        return bool(self.groups or self.held or self.released or self.dead)

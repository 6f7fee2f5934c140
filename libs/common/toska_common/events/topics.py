"""Topics and patterns: dotted words; `*` stands for one word, `#` for any number of them, as AMQP 0-9-1 has it.

`mesh.instance.registered` is matched by `mesh.instance.*`, `mesh.#`, `#` and itself. Ephemeral topics are those whose
first word is `reply` or `ephemeral`: their events go to whoever listens, and are kept for nobody. Topics whose first
word is `mesh` are the mesh's own: caches and people believe them.
Source: https://www.rabbitmq.com/amqp-0-9-1-reference §topic exchange
"""

import re
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from toska_common.errors import InvalidInput

T = TypeVar("T", bound=Hashable)

MAX_TOPIC = 200
"""Characters; a routing key of AMQP has 255, and queues are named after topics and groups."""

_WORD = r"[A-Za-z0-9_-]+"
_TOPIC = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_PATTERN = re.compile(rf"(?:{_WORD}|\*|#)(?:\.(?:{_WORD}|\*|#))*")
_GROUP = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?")
_EPHEMERAL = ("reply.", "ephemeral.")
_RESERVED = "mesh."


def check_topic(topic: str, *, field: str = "topic") -> str:
    """The topic itself.

    Raises:
        InvalidInput: It is not dotted words.
    """
    if len(topic) > MAX_TOPIC or not _TOPIC.fullmatch(topic):
        raise _invalid(
            field, topic, f"a topic is words of A-Z a-z 0-9 _ - joined by dots, {MAX_TOPIC} characters at most"
        )
    return topic


def check_pattern(pattern: str, *, field: str = "topic") -> str:
    """The pattern itself.

    Raises:
        InvalidInput: It is not dotted words, `*` and `#`.
    """
    if len(pattern) > MAX_TOPIC or not _PATTERN.fullmatch(pattern):
        raise _invalid(field, pattern, "a pattern is words, * (one word) or # (any number of words) joined by dots")
    return pattern


def check_group(group: str, *, field: str = "group") -> str:
    """The group's name itself.

    Raises:
        InvalidInput: It is not a name.
    """
    if not _GROUP.fullmatch(group):
        raise _invalid(field, group, "a group is a name of A-Z a-z 0-9 . _ -, 80 characters at most")
    return group


def is_ephemeral(topic: str) -> bool:
    """Whether events of this topic are for those who listen now, and kept for nobody."""
    return topic.startswith(_EPHEMERAL)


def is_reserved(topic: str) -> bool:
    """Whether events of this topic are the mesh's own to publish."""
    return topic.startswith(_RESERVED)


def matches(pattern: str, topic: str) -> bool:
    """Whether the pattern stands for the topic."""
    return _matches(pattern.split("."), topic.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    # Greedy with one point to come back to: each `#` needs only the last one to be tried again.
    at = place = 0
    back: tuple[int, int] | None = None
    while place < len(words):
        if at < len(pattern) and pattern[at] == "#":
            back = (at, place)
            at += 1
        elif at < len(pattern) and pattern[at] in ("*", words[place]):
            at, place = at + 1, place + 1
        elif back is not None:
            at, place = back[0] + 1, back[1] + 1
            back = (back[0], place)
        else:
            return False
    return all(part == "#" for part in pattern[at:])


class PatternSet(Generic[T]):
    """Who wants which topics. A topic's answer is remembered, until somebody comes or goes."""

    def __init__(self, remembered: int = 10_000) -> None:
        self._patterns: dict[T, tuple[str, ...]] = {}
        self._found: dict[str, tuple[T, ...]] = {}
        self._remembered = remembered

    def __iter__(self) -> Iterator[T]:
        return iter(self._patterns)

    def put(self, who: T, patterns: tuple[str, ...]) -> None:
        """Someone wants topics of these patterns, and no others from now on."""
        self._patterns[who] = patterns
        self._found.clear()

    def drop(self, who: T) -> None:
        """Someone wants nothing any more."""
        self._patterns.pop(who, None)
        self._found.clear()

    def matching(self, topic: str) -> tuple[T, ...]:
        """Everybody who wants it, each once, in the order in which they came."""
        found = self._found.get(topic)
        if found is None:
            words = topic.split(".")
            found = tuple(
                who
                for who, patterns in self._patterns.items()
                if any(_matches(pattern.split("."), words) for pattern in patterns)
            )
            if len(self._found) >= self._remembered:
                self._found.clear()
            self._found[topic] = found
        return found


def _invalid(field: str, value: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": f"{reason}; not {value[:80]!r}"}])

"""Events that users fire, kept as Consul's agents keep them: the latest few, in memory, that are meant for the node."""

import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from toska_discovery.errors import EventRefused
from toska_discovery.filters.problems import InvalidFilter
from toska_discovery.filters.regexes import compile_regex
from toska_discovery.instance import ServiceDefinition

KEPT = 256
"""Events remembered; the oldest goes first."""
SIZE_MAX_BYTES = 512
"""Longest event, name and filters included: a real Consul has to fit it into one gossip packet."""
EVENTS = "events"
"""Topic of the events."""
_REGEX = "error parsing regexp"


@dataclass(frozen=True, slots=True)
class UserEvent:
    """Something that happened, in the words of whoever fired it.

    Attributes:
        node, service, tag: Regular expressions; empty for everybody.
        ltime: Its place in the order of events; 0 before it has one.
    """

    name: str
    payload: bytes = b""
    node: str = ""
    service: str = ""
    tag: str = ""
    id: str = ""
    ltime: int = 0

    @property
    def stamp(self) -> int:
        """Its id as the index that blocking queries go by: equal or not, and never in order."""
        digits = self.id.replace("-", "")
        return int(digits[:16], 16) ^ int(digits[16:], 16)


class EventBuffer:
    """The latest events of the node called `node_name`, oldest first."""

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._events: deque[UserEvent] = deque(maxlen=KEPT)
        self._clock = 1

    def fire(self, event: UserEvent, services: Iterable[ServiceDefinition]) -> UserEvent:
        """Give `event` an id, and keep it if it is meant for this node, which has `services`.

        Raises:
            EventRefused: A filter is wrong, or it is too long.
        """
        fired = replace(event, id=str(uuid.uuid4()))
        is_ours = self._is_ours(event, services)
        texts = (event.name, event.node, event.service, event.tag)
        if len(event.payload) + sum(len(text.encode()) for text in texts) > SIZE_MAX_BYTES:
            raise EventRefused(
                '1 error occurred:\n\t* error broadcasting event to segment "": '
                f"user event exceeds configured limit of {SIZE_MAX_BYTES} bytes before encoding\n\n"
            )
        self._clock += 1
        if is_ours:
            self._events.append(replace(fired, ltime=self._clock))
        return fired

    def list_named(self, name: str) -> list[UserEvent]:
        """The events of a name; all if it is empty."""
        return [event for event in self._events if name in {"", event.name}]

    def _is_ours(self, event: UserEvent, services: Iterable[ServiceDefinition]) -> bool:
        if event.tag and not event.service:
            raise EventRefused("Cannot provide tag filter without service filter")
        node, service, tag = (
            _matcher(kind, pattern)
            for kind, pattern in (("node", event.node), ("service", event.service), ("tag", event.tag))
        )
        if event.node and not node(self._node_name):
            return False
        return not event.service or any(
            service(item.name) and (not event.tag or any(map(tag, item.tags))) for item in services
        )


def _matcher(kind: str, pattern: str) -> Callable[[str], bool]:
    try:
        return compile_regex(pattern)
    except InvalidFilter as error:
        reason = str(error).partition(_REGEX)[2]
        raise EventRefused(f"Invalid {kind} filter: {_REGEX}{reason}") from error

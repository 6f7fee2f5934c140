"""What services say is out of date, on its way from events to the workers that keep it.

    cache.responses.outdated ──▶ names, gathered ──▶ messages to all workers
             a gap in what was heard ──▶ everything that events may end

However many events come, workers are told every `EVERY_S` at most, and of no more than so many names: beyond that it is
everything at once. Messages are small enough to be worked through between two requests.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio
import structlog
from toska_common.contracts.events import ResponsesOutdated
from toska_common.events.bus import EventBus
from toska_common.events.errors import Reject
from toska_common.events.handlers import Incoming

from toska_gateway.worker.cache.keys import read_url
from toska_gateway.worker.http1 import BadMessage

log = structlog.get_logger(__name__)

EVERY_S: Final = 0.05
MOST_NAMES: Final = 4000
MOST_CHARACTERS: Final = 256 * 1024
_SLICE: Final = 250
_QUIET_S: Final = 60.0

End = Callable[[Mapping[str, Sequence[str]]], None]


class OutdatedResponses:
    """Hears what is out of date, in every process of every gateway.

    Args:
        bus: Not open yet.
    """

    def __init__(self, bus: EventBus) -> None:
        self._names: set[tuple[str, str]] = set()
        self._characters = 0
        self._everything = False
        self._came = anyio.Event()
        self._quiet_until = -math.inf
        bus.subscribe(ResponsesOutdated, name="cache", on_gap=self._end_everything)(self._take)

    async def run(self, end: End) -> None:
        """Have `end` told of what came, for ever."""
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            for part in self._gathered():
                end(part)
            await anyio.sleep(EVERY_S)

    def _gathered(self) -> list[dict[str, list[str]]]:
        names, self._names, self._characters = sorted(self._names), set(), 0
        everything, self._everything = self._everything, False
        if everything:
            return [{}]
        parts: list[dict[str, list[str]]] = []
        for start in range(0, len(names), _SLICE):
            part: dict[str, list[str]] = {}
            for kind, name in names[start : start + _SLICE]:
                part.setdefault(kind, []).append(name)
            parts.append(part)
        return parts

    async def _take(self, incoming: Incoming[ResponsesOutdated]) -> None:
        outdated = incoming.data
        for url in outdated.urls:
            _require_url(url)
        for kind, names in (("groups", outdated.groups), ("urls", outdated.urls), ("routes", outdated.routes)):
            for name in names:
                self._add(kind, name)

    def _add(self, kind: str, name: str) -> None:
        if self._everything or (kind, name) in self._names:
            return
        self._characters += len(name)
        self._names.add((kind, name))
        self._came.set()
        if len(self._names) > MOST_NAMES or self._characters > MOST_CHARACTERS:
            self._end_everything()
            if anyio.current_time() > self._quiet_until:
                log.warning("cache_events_flood", more_than=MOST_NAMES)
                self._quiet_until = anyio.current_time() + _QUIET_S

    def _end_everything(self) -> None:
        self._everything = True
        self._names.clear()
        self._characters = 0
        self._came.set()


def _require_url(url: str) -> None:
    try:
        read_url(url)
    except (ValueError, BadMessage) as error:
        reason = error.reason if isinstance(error, BadMessage) else str(error)
        raise Reject(f"urls: {url[:200]} cannot be read: {reason}") from error

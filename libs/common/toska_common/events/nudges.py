"""Looking again because an event says so: a reader goes by its own clock, and sooner when a topic speaks.

    sleep(5) ──5 s──────────────────────────────────▶ look again
          └──a topic speaks──at most once in `every`──▶ look again

What is read stays the truth, and an event only says when to read it: however many come are one look, one that is lost
costs a pause, and without a broker everything goes on as if there were no events at all.
"""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio

from toska_common.events.bus import EventBus
from toska_common.events.event import Event
from toska_common.events.handlers import Incoming
from toska_common.events.payload import EventPayload


def _ignore(_: Event) -> None:
    """For readers that look at everything anyway."""


class Nudges:
    """Ends pauses when one of some topics speaks.

    Args:
        bus: Not open yet; the subscription has no group, so every process hears.
        topics: Patterns or payload types.
        name: The subscription's, for logs and metrics.
        every: Pauses are cut short no more often than this, whatever comes.

    Attributes:
        heard: How many events came.
        note: Told of each event as it comes, and must not wait; for readers that want to know what it is about.
    """

    def __init__(
        self,
        bus: EventBus,
        *topics: str | type[EventPayload],
        name: str,
        every: timedelta = timedelta(seconds=1),
    ) -> None:
        self.heard = 0
        self.note: Callable[[Event], None] = _ignore
        self._every_s = every.total_seconds()
        self._said = anyio.Event()
        self._due_at = -math.inf
        bus.subscribe(*topics, name=name)(self._hear)

    async def sleep(self, seconds: float, *, since: int | None = None) -> None:
        """Sleep so long, or until a topic has spoken.

        Args:
            seconds: At most.
            since: What `heard` was before the reader looked: it may have missed what an event since then is about.
        """
        with anyio.move_on_after(seconds):
            if since is None or self.heard == since:
                await self._said.wait()
            await anyio.sleep_until(self._due_at)

    async def run(self, look: Callable[[], None]) -> None:
        """Call `look` soon after a topic has spoken, for ever."""
        while True:
            await self.sleep(math.inf)
            look()

    async def _hear(self, incoming: Incoming[Any]) -> None:
        self.heard += 1
        self.note(incoming.event)
        now = anyio.current_time()
        if self._due_at <= now:
            self._due_at = max(now, self._due_at + self._every_s)
        said, self._said = self._said, anyio.Event()
        said.set()

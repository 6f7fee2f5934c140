"""What became of instances, for whoever follows it: a bounded history that every reader reads at its own pace.

Nobody has a queue of its own. A reader is a position in the history, so a slow one costs nothing but what it has
missed, and is told so once the history has moved past it. Positions carry the feed's epoch: after a restart they mean
nothing.
"""

import os
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

import anyio
from toska_common.contracts.discovery import Instance, ServiceEvent

from toska_discovery.member import Member, render

HISTORY = 2000
EventType = Literal["registered", "updated", "health-changed", "deregistered"]


@dataclass(slots=True)
class Happened:
    """One event; its JSON is made when first read, since as a rule nobody reads."""

    number: int
    type: EventType
    member: Member
    reason: str = ""
    _json: str = field(default="", init=False)

    @property
    def instance(self) -> Instance:
        """The contract of the member."""
        return render(self.member)

    @property
    def json(self) -> str:
        """The contract, encoded."""
        if not self._json:
            event = ServiceEvent(type=self.type, reason=self.reason, instance=self.instance)
            self._json = event.model_dump_json()
        return self._json


@dataclass(frozen=True, slots=True)
class Missed:
    """The history does not reach back to the reader's position: read everything anew and go on from here."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing happened for a while."""


class Feed:
    """The last `history` events."""

    def __init__(self, *, history: int = HISTORY) -> None:
        self._epoch = os.urandom(4).hex()
        self._events: deque[Happened] = deque(maxlen=history)
        self._number = 0
        self._news = anyio.Event()
        self._stopped = False
        self.wanted = anyio.Event()
        """Set once somebody has read; until then nobody needs to look for news."""
        self.readers = 0

    @property
    def position(self) -> str:
        """The position after the last event."""
        return self.position_of(self._number)

    def position_of(self, number: int) -> str:
        """The position after an event."""
        return f"{self._epoch}-{number}"

    def publish(self, kind: EventType, member: Member, reason: str = "") -> None:
        """Something happened."""
        self._number += 1
        self._events.append(Happened(self._number, kind, member, reason))
        self._wake()

    def stop(self) -> None:
        """Let every reader come to its end."""
        self._stopped = True
        self._wake()

    async def read(self, position: str, quiet_s: float) -> AsyncGenerator[Happened | Missed | Quiet]:
        """Events after `position` (empty: from now on), `Quiet` after each `quiet_s` without one; ends at the stop."""
        self.wanted.set()
        seen = self._number if not position else self._parse(position)
        self.readers += 1
        try:
            while not self._stopped:
                news = self._news
                if seen is None or (self._number > seen and seen < self._events[0].number - 1):
                    seen = self._number
                    yield Missed()
                elif self._number > seen:
                    # The reader may take its time over each: the history goes on meanwhile.
                    happened = self._events[seen - self._events[0].number + 1]
                    seen = happened.number
                    yield happened
                else:
                    with anyio.move_on_after(quiet_s) as scope:
                        await news.wait()
                    if scope.cancelled_caught:
                        yield Quiet()
        finally:
            self.readers -= 1

    def _parse(self, position: str) -> int | None:
        epoch, _, number = position.rpartition("-")
        if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self._number else None

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

"""What a group holds for later: the next of it in memory, by when it is due, and the rest only in the log.

With a horizon, everything that is due after it is in the log alone. It is there from when more than `most` were held
until all that was left behind was read back; so a million reminders for tomorrow take no memory today.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from toska_events.groups.entry import Entry

MOST = 10_000


@dataclass(slots=True, order=True)
class Delayed:
    """An event that is held until its time; that of an ephemeral topic is here itself."""

    due: int
    offset: int
    attempts: int = field(compare=False)
    blocks: bool = field(compare=False)
    reason: str = field(default="", compare=False)
    key: str | None = field(default=None, compare=False)
    entry: Entry | None = field(default=None, compare=False)


class Delays:
    """What is held, soonest first.

    Args:
        stored: Whether the log has it as well; if it has not, nothing may be left to it.
        most: How much is in memory, about; what blocks its key always is.
    """

    def __init__(self, *, stored: bool, most: int = MOST) -> None:
        self._stored = stored
        self._most = self._limit = most
        self._heap: list[Delayed] = []
        self._horizon: tuple[int, int] | None = None
        self._reading = False
        self._left_behind = False

    def __iter__(self) -> Iterator[Delayed]:
        return iter(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due(self) -> int | None:
        """When the next one is due."""
        return self._heap[0].due if self._heap else None

    def push(self, item: Delayed) -> None:
        """Hold one; the caller has it stored."""
        if self._horizon is not None and (item.due, item.offset) > self._horizon and self._can_leave(item):
            self._left_behind = True
            return
        heapq.heappush(self._heap, item)
        if self._stored and len(self._heap) > self._limit:
            self._leave_behind()

    def pop_due(self, now: int) -> Delayed | None:
        """The next one, if it is due."""
        return heapq.heappop(self._heap) if self._heap and self._heap[0].due <= now else None

    @property
    def reads_on(self) -> tuple[int, int] | None:
        """After which moment and offset more should be read back, if any should."""
        return self._horizon if not self._reading and len(self._heap) <= self._most // 4 else None

    def begin_read(self) -> None:
        """More is being read back; `take_read` or `give_up_read` has to follow."""
        self._reading, self._left_behind = True, False

    def take_read(self, items: Iterable[Delayed], *, whole: bool) -> None:
        """What was read, soonest first; `whole` if there was no more of it."""
        if not self._reading:
            return  # everything was dropped meanwhile
        self._reading = False
        for item in items:
            heapq.heappush(self._heap, item)
            self._horizon = (item.due, item.offset)
        if whole and not self._left_behind:
            self._horizon = None

    def give_up_read(self) -> None:
        """It could not be read."""
        self._reading = False

    def remember_more(self, due: int, offset: int) -> None:
        """There is more in the log, after this moment and offset."""
        self._horizon = (due, offset)

    def drop(self, unwanted: Callable[[Delayed], bool]) -> list[Delayed]:
        """Forget some of it; returns what that was."""
        gone = [item for item in self._heap if unwanted(item)]
        self._heap = [item for item in self._heap if not unwanted(item)]
        heapq.heapify(self._heap)
        return gone

    def clear(self) -> None:
        """Forget all of it."""
        self._heap.clear()
        self._horizon, self._reading = None, False

    def _leave_behind(self) -> None:
        """Leave the later half to the log."""
        ordered = sorted(self._heap)
        last = ordered[self._most // 2]
        horizon = (last.due, last.offset)
        self._horizon = horizon if self._horizon is None else min(horizon, self._horizon)
        self._left_behind = True
        # Sorted, and so a heap.
        self._heap = [item for item in ordered if (item.due, item.offset) <= self._horizon or not self._can_leave(item)]
        self._limit = max(self._most, 2 * len(self._heap))  # if most of it cannot leave, it is not tried each time

    def _can_leave(self, item: Delayed) -> bool:
        return self._stored and not item.blocks and item.entry is None and item.due > 0

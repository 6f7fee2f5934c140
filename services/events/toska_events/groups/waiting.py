"""Events of a group that are ready to be handed out: by priority, and one at a time for each key where order counts.

offered -> ready -> taken -> settled          the next of its key becomes ready
                      |
                      +----> delayed, blocking its key -> ready, before the rest of its key
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from toska_events.groups.entry import Entry

W = TypeVar("W", bound=Entry | int)

LANES = 3
"""Priorities: low, normal, high."""


class WaitingRoom:
    """What waits, for a group; `counts` is how many of each priority, those behind their key included.

    A key has a lane while one of its events is ready, handed out, or delayed; the others wait in it. While it is
    delayed they are parked: only their offsets are kept, so that one key that fails for an hour does not fill the room
    for all others.

    Attributes:
        parked: How many are.
    """

    def __init__(self) -> None:
        self.counts = [0] * LANES
        self.bytes = 0
        self._ready: tuple[deque[Entry], ...] = tuple(deque() for _ in range(LANES))
        self._lanes: dict[str, deque[Entry | int]] = {}
        self._blocked: set[str] = set()
        self.parked = 0

    def __iter__(self) -> Iterator[Entry]:
        for queue in self._ready:
            yield from queue
        for lane in self._lanes.values():
            yield from (waiting for waiting in lane if isinstance(waiting, Entry))

    @property
    def parked_offsets(self) -> Iterator[int]:
        """Of what is parked."""
        for lane in self._lanes.values():
            yield from (waiting for waiting in lane if isinstance(waiting, int))

    @property
    def any_ready(self) -> bool:
        """Whether something can be handed out."""
        low, normal, high = self._ready
        return bool(normal or high or low)

    @property
    def ready(self) -> int:
        """How many can be handed out."""
        return sum(map(len, self._ready))

    def offer(self, entry: Entry) -> None:
        """Take in an event that comes for the first time, after what is there."""
        lane = None
        if entry.key is not None:
            lane = self._lanes.get(entry.key)
            if lane is None:
                self._lanes[entry.key] = deque()
            elif entry.offset > 0 and (entry.key in self._blocked or (lane and isinstance(lane[-1], int))):
                lane.append(entry.offset)
                self.parked += 1
                return
        self._count(entry, 1)
        (self._ready[entry.priority] if lane is None else lane).append(entry)

    def put_back(self, entry: Entry) -> None:
        """Take in one that was handed out before, ahead of what is there; its lane is still its own."""
        self._count(entry, 1)
        self._ready[entry.priority].appendleft(entry)
        if entry.key is not None:
            self._blocked.discard(entry.key)

    def block(self, key: str) -> None:
        """Have events of a key wait for one that is delayed."""
        self._blocked.add(key)
        self._lanes[key] = deque(self._park(waiting) for waiting in self._lanes.get(key, ()))

    def take(self) -> Entry | None:
        """The event whose turn it is."""
        for queue in reversed(self._ready):
            if queue:
                entry = queue.popleft()
                self._count(entry, -1)
                return entry
        return None

    def release(self, key: str | None) -> int | None:
        """The event of a key that was out is settled: the next one is ready; or its offset, if it was parked."""
        if key is None:
            return None
        self._blocked.discard(key)
        lane = self._lanes.get(key)
        if not lane:
            self._lanes.pop(key, None)
            return None
        following = lane.popleft()
        if isinstance(following, int):
            self.parked -= 1
            return following
        self._ready[following.priority].append(following)
        return None

    def drop(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Forget some of what waits; the lanes of those that are returned have yet to be released.

        Of what is parked nothing is known: if it is not there any more, that shows when it is read back.
        """
        for key, lane in self._lanes.items():
            self._lanes[key] = deque(self._kept(lane, unwanted))
        gone: list[Entry] = []
        for queue in self._ready:
            gone += filter(unwanted, queue)
            kept = list(self._kept(queue, unwanted))
            queue.clear()
            queue.extend(kept)
        return gone

    def _kept(self, queue: Iterable[W], unwanted: Callable[[Entry], bool]) -> Iterator[W]:
        for waiting in queue:
            if isinstance(waiting, Entry) and unwanted(waiting):
                self._count(waiting, -1)
            else:
                yield waiting

    def _park(self, waiting: Entry | int) -> Entry | int:
        if isinstance(waiting, int) or waiting.offset < 0:
            return waiting
        self._count(waiting, -1)
        self.parked += 1
        return waiting.offset

    def _count(self, entry: Entry, change: int) -> None:
        self.counts[entry.priority] += change
        self.bytes += change * entry.size

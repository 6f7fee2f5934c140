"""Events of a group that are ready to be handed out: by priority, and one at a time for each key where order counts.

offered -> ready -> taken -> settled          the next of its key becomes ready
                      |
                      +----> delayed, blocking its key -> ready, before the rest of its key
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from toska_events.groups.entry import Entry

LANES = 3
"""Priorities: low, normal, high."""


class WaitingRoom:
    """What waits, for a group; `counts` is how many of each priority, those behind their key included.

    A key has a lane while one of its events is ready, handed out, or delayed; the others wait in it.
    """

    def __init__(self) -> None:
        self.counts = [0] * LANES
        self.bytes = 0
        self._ready: tuple[deque[Entry], ...] = tuple(deque() for _ in range(LANES))
        self._lanes: dict[str, deque[Entry]] = {}

    def __iter__(self) -> Iterator[Entry]:
        for queue in (*self._ready, *self._lanes.values()):
            yield from queue

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
        self._count(entry, 1)
        if entry.key is not None:
            lane = self._lanes.get(entry.key)
            if lane is not None:
                lane.append(entry)
                return
            self._lanes[entry.key] = deque()
        self._ready[entry.priority].append(entry)

    def put_back(self, entry: Entry) -> None:
        """Take in one that was handed out before, ahead of what is there; its lane is still its own."""
        self._count(entry, 1)
        self._ready[entry.priority].appendleft(entry)

    def block(self, key: str) -> None:
        """Have events of a key wait for one that is delayed."""
        self._lanes.setdefault(key, deque())

    def take(self) -> Entry | None:
        """The event whose turn it is."""
        for queue in reversed(self._ready):
            if queue:
                entry = queue.popleft()
                self._count(entry, -1)
                return entry
        return None

    def release(self, key: str | None) -> None:
        """The event of a key that was out is settled: the next one is ready."""
        if key is None:
            return
        lane = self._lanes.get(key)
        if not lane:
            self._lanes.pop(key, None)
            return
        following = lane.popleft()
        self._ready[following.priority].append(following)

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        """Forget some of what waits."""
        for key, lane in self._lanes.items():
            self._lanes[key] = deque(self._kept(lane, unwanted))
        gone: list[Entry] = []
        for queue in self._ready:
            gone += filter(unwanted, queue)
            kept = list(self._kept(queue, unwanted))
            queue.clear()
            queue.extend(kept)
        for entry in gone:
            self.release(entry.key)

    def _kept(self, queue: Iterable[Entry], unwanted: Callable[[Entry], bool]) -> Iterator[Entry]:
        for entry in queue:
            if unwanted(entry):
                self._count(entry, -1)
            else:
                yield entry

    def _count(self, entry: Entry, change: int) -> None:
        self.counts[entry.priority] += change
        self.bytes += change * entry.size

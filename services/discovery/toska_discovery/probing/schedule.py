"""When each check is probed next: one heap for all of them, and no task or timer of their own.

    put ──some time within the interval──▶ due ──take──▶ out ──done──▶ due again, one interval later

The first probe comes at a random moment of the interval, so that checks that are registered together, or are all there
at the start, do not all go out together. An interval counts from the end of a probe, as in Consul: slow answers are
not asked for faster than they come.
"""

import heapq
from collections.abc import Callable


class Schedule:
    """Monotonic seconds in, check ids out.

    Args:
        chance: A random number in [0, 1).
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._due: dict[str, float | None] = {}
        self._intervals: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._intervals)

    def __contains__(self, check_id: str) -> bool:
        return check_id in self._intervals

    @property
    def next_due(self) -> float | None:
        """When somebody should come and `take`; `None` while there is nothing to wait for."""
        self._discard_outdated()
        return self._queue[0][0] if self._queue else None

    def put(self, check_id: str, interval_s: float, now: float) -> None:
        """Have a check probed each `interval_s`, from some moment of the coming interval on; replaces what was."""
        self._intervals[check_id] = interval_s
        self._push(check_id, now + interval_s * self._chance())

    def remove(self, check_id: str) -> None:
        """Have a check probed no more."""
        if self._intervals.pop(check_id, None) is not None:
            del self._due[check_id]
        if len(self._queue) > 2 * len(self._intervals) + 64:
            self._queue = [(due, key) for key, due in self._due.items() if due is not None]
            heapq.heapify(self._queue)

    def take(self, now: float, limit: int) -> list[str]:
        """Up to `limit` checks that are due, the most overdue first; each is out until `done`."""
        taken: list[str] = []
        while len(taken) < limit:
            self._discard_outdated()
            if not self._queue or self._queue[0][0] > now:
                break
            _, check_id = heapq.heappop(self._queue)
            self._due[check_id] = None
            taken.append(check_id)
        return taken

    def done(self, check_id: str, now: float) -> None:
        """A probe that was taken has ended; one that was removed or put anew in the meantime is left as it is."""
        if self._due.get(check_id, now) is None:
            self._push(check_id, now + self._intervals[check_id])

    def _push(self, check_id: str, due: float) -> None:
        self._due[check_id] = due
        heapq.heappush(self._queue, (due, check_id))

    def _discard_outdated(self) -> None:
        while self._queue and self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)

"""When responses were last said to be out of date, for those that come to be kept after that and were made before.

A response may be on its way while an event ends it, or lie in Redis, where another gateway put it before it heard. Of
more names than are remembered the oldest are forgotten, and what is no younger than the last of those counts as ended.
Pure; times are monotonic seconds.
"""

from collections.abc import Iterable
from typing import Final

from toska_gateway.worker.cache.entry import Entry

MOST: Final = 4096
CLOCKS_DIFFER_S: Final = 2.0
"""How far another machine's clock may be from ours, and how much later than we it may hear of an event."""

GROUP, URL, ROUTE = b"g", b"u", b"r"


class Endings:
    """The last ending of each group, URL and route.

    Args:
        now: When this begins; what was made before may have ended unheard.

    Attributes:
        last_at: When something ended last.
    """

    def __init__(self, now: float) -> None:
        self.last_at = now
        self._ended_at: dict[bytes, float] = {}
        self._all_ended_at = now

    def end(self, kind: bytes, names: Iterable[bytes], now: float) -> None:
        """These are out of date."""
        ended_at, self.last_at = self._ended_at, now
        for name in names:
            ended_at.pop(kind + name, None)  # so that the oldest stand first
            ended_at[kind + name] = now
        while len(ended_at) > MOST:
            oldest = next(iter(ended_at))
            self._all_ended_at = max(self._all_ended_at, ended_at.pop(oldest))

    def end_all(self, now: float) -> None:
        """Everything is."""
        self._ended_at.clear()
        self._all_ended_at = self.last_at = now

    def ended(self, entry: Entry, made_at: float) -> bool:
        """Whether a response that was made at `made_at`, or later, may be one that has ended since."""
        if made_at <= self._all_ended_at:
            return True
        ended_at = self._ended_at
        if not ended_at:
            return False
        names = [URL + entry.url, ROUTE + entry.route.encode(), *(GROUP + group for group in entry.groups or ())]
        return any(made_at <= ended_at.get(name, 0.0) for name in names)

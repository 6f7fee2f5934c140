"""One consumer of a group."""

from collections.abc import Callable

from toska_events.groups.entry import Entry

_MOST_BYTES = 4 << 20
"""Of events in the hands of one member, and one more: so that what it is given at once fits into a frame, and memory
holds what a thousand slow readers have."""


class Member:
    """A live subscription, as its group sees it.

    Args:
        prefetch: Most events that it holds unsettled.
        deliver: Sends it some; must not fail.
        wants: Tells whether it cares for an event; `None` if for all.
    """

    __slots__ = ("_bytes", "deliver", "held", "listening", "prefetch", "wants")

    def __init__(
        self,
        prefetch: int,
        deliver: Callable[[list[Entry]], None],
        wants: Callable[[Entry], bool] | None = None,
    ) -> None:
        self.prefetch = prefetch
        self.deliver = deliver
        self.wants = wants
        self.held: dict[int, Entry] = {}
        self._bytes = 0
        self.listening = True
        """Whether it reads what it is sent; one that does not is given no more."""

    @property
    def credit(self) -> int:
        """How many more it takes."""
        if not self.listening or self._bytes >= _MOST_BYTES:
            return 0
        return self.prefetch - len(self.held)

    def take(self, entry: Entry) -> None:
        """It is given one."""
        self.held[entry.offset] = entry
        self._bytes += entry.size

    def give_back(self, offset: int) -> bool:
        """It has one no more; whether it had it."""
        entry = self.held.pop(offset, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        return True

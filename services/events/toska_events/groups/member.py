"""One consumer of a group."""

from collections.abc import Callable

from toska_events.groups.entry import Entry


class Member:
    """A live subscription, as its group sees it.

    Args:
        prefetch: Most events that it holds unsettled.
        deliver: Sends it some; must not fail.
        wants: Tells whether it cares for an event; `None` if for all.
    """

    __slots__ = ("deliver", "held", "listening", "prefetch", "wants")

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
        self.listening = True
        """Whether it reads what it is sent; one that does not is given no more."""

    @property
    def credit(self) -> int:
        """How many more it takes."""
        return self.prefetch - len(self.held) if self.listening else 0

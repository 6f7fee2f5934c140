"""What a saga needs of whatever remembers for it: the answer to what was done already is what it was then."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Deed = Callable[[], Awaitable[Any]]


class Journal(Protocol):
    """The memory of one saga, on which it goes on after a crash."""

    async def remember(self, name: str, deed: Deed) -> Any:
        """The JSON that `deed` gave when the saga was here for the first time; it is called only if it never ended.

        Raises:
            HistoryDiffers: Another name is recorded at this place.
            Left: The saga is somebody else's by now, or `deed` raised this; nothing was recorded.
        """
        ...

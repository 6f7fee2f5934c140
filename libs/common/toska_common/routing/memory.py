"""What was worked out of objects that never change, for as long as each of them lives.

By identity, and not by content: comparing two tables of 10,000 routes costs more than what is remembered of them.
"""

from typing import Generic, TypeVar
from weakref import ref

K = TypeVar("K")
V = TypeVar("V")


class _Key(ref[K]):
    """A reference that knows where it is kept, so that the entry can go with its object."""

    __slots__ = ("place",)
    place: int


class Memo(Generic[K, V]):
    """A fact about each of many immutable objects. A value must not lead back to its object, or both stay for ever."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[_Key[K], V]] = {}

    def get(self, of: K) -> V | None:
        """What is known of this very object, if anything is."""
        found = self._known.get(id(of))
        # An id is given again once its object is gone, perhaps before the entry is.
        return found[1] if found is not None and found[0]() is of else None

    def put(self, of: K, value: V) -> V:
        """Remember something of an object; returns it."""
        key = _Key(of, self._forget)
        key.place = id(of)
        self._known[key.place] = key, value
        return value

    def __len__(self) -> int:
        return len(self._known)

    def _forget(self, key: _Key[K]) -> None:
        found = self._known.get(key.place)
        if found is not None and found[0] is key:
            del self._known[key.place]


class Lineage(Generic[K, V]):
    """How each of many immutable objects came of the one before it, so that nobody has to look for what differs."""

    def __init__(self) -> None:
        self._origins = Memo[K, tuple[ref[K], V]]()

    def record(self, before: K, after: K, change: V) -> V:
        """Remember what has changed between two objects; of each, what was told last counts. Returns the change."""
        self._origins.put(after, (ref(before), change))
        return change

    def find(self, before: K, after: K) -> V | None:
        """What has changed from one to the other, if that was told."""
        found = self._origins.get(after)
        return found[1] if found is not None and found[0]() is before else None

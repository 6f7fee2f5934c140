"""Which of the things that were asked for are kept, within a number of bytes: W-TinyLFU (Einziger, Friedman, Manes).

    put ─► window ─(1 %, least recently used)─► candidate ─┬─ more popular than who would have to go ─► probation
                                                           └─ else dropped
    probation ─ used again ─► protected (80 % of the rest) ─ least recently used ─► probation ─► victim

A scan passes through the window and pushes nothing out. Popularity is a sketch of everything that was asked for, stored
or not; what is stored counts its own uses, since that is cheaper on the way of a hit. Weighed against several victims,
a candidate has to be more popular than all of them together. Pure; the order of calls is all that matters.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from toska_gateway.worker.cache.sketch import MOST, FrequencySketch

T = TypeVar("T")

_WINDOW_SHARE: Final = 0.01
_PROTECTED_SHARE: Final = 0.8
_TYPICAL_BYTES: Final = 4096


class Segment(Generic[T]):
    """Items in the order of their last use, the least recent first."""

    __slots__ = ("bytes", "items")

    def __init__(self) -> None:
        self.bytes = 0
        self.items: OrderedDict[bytes, Item[T]] = OrderedDict()

    def add(self, item: "Item[T]") -> None:
        """Put an item in, as the one last used."""
        item.segment = self
        self.bytes += item.size
        self.items[item.key] = item

    def remove(self, item: "Item[T]") -> None:
        """Take an item out."""
        self.bytes -= item.size
        del self.items[item.key]


class Item(Generic[T]):
    """Something that is kept, and how often it was used."""

    __slots__ = ("ages", "key", "segment", "size", "uses", "value")

    def __init__(self, key: bytes, value: T, size: int, segment: Segment[T], ages: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.segment = segment
        self.uses = 0
        self.ages = ages


class TinyLfu(Generic[T]):
    """Keeps the most wanted of what it is given.

    Args:
        capacity: Bytes, by the sizes that are given with the values; never exceeded.
        on_leave: Told of each value that is dropped, replaced or removed.

    Attributes:
        evictions: Values that were there and made room for others.
        rejections: Values that were not popular enough to stay.
    """

    def __init__(self, capacity: int, on_leave: Callable[[T], None] = lambda _: None) -> None:
        self.capacity = capacity
        self.evictions = 0
        self.rejections = 0
        self._on_leave = on_leave
        self._items: dict[bytes, Item[T]] = {}
        self._window: Segment[T] = Segment()
        self._probation: Segment[T] = Segment()
        self._protected: Segment[T] = Segment()
        self._sketch = FrequencySketch(max(256, capacity // _TYPICAL_BYTES))
        self._window_bytes = int(capacity * _WINDOW_SHARE)
        self._main_bytes = capacity - self._window_bytes
        self._protected_bytes = int(self._main_bytes * _PROTECTED_SHARE)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def used(self) -> int:
        """What all that is kept takes."""
        return self._window.bytes + self._probation.bytes + self._protected.bytes

    def values(self) -> Iterator[T]:
        """Everything that is kept."""
        return (item.value for item in list(self._items.values()))

    def peek(self, key: bytes) -> T | None:
        """What is kept under `key`; does not count as a use."""
        item = self._items.get(key)
        return None if item is None else item.value

    def get(self, key: bytes) -> T | None:
        """What is kept under `key`, which is used now; a key that is not there is remembered as wanted."""
        found = self.use(key)
        if found is None:
            self._sketch.add(hash(key))
        return found

    def use(self, key: bytes) -> T | None:
        """The same, but that nothing is remembered of a key that is not there."""
        item = self._items.get(key)
        if item is None:
            return None
        item.uses += 1
        self._sketch.count()
        segment = item.segment
        if segment is self._probation:
            self._promote(item)
        else:
            segment.items.move_to_end(key)
        return item.value

    def _promote(self, item: Item[T]) -> None:
        protected = self._protected
        self._probation.remove(item)
        protected.add(item)
        while protected.bytes > self._protected_bytes and len(protected.items) > 1:
            oldest = next(iter(protected.items.values()))
            protected.remove(oldest)
            self._probation.add(oldest)

    def put(self, key: bytes, value: T, size: int) -> bool:
        """Keep a value, if it is popular enough or there is room; tells whether it was kept for now.

        Args:
            key: What it is found under; what was there before leaves.
            value: Whatever it is.
            size: Bytes that it takes, overhead included.
        """
        item = Item(key, value, size, self._window, self._sketch.ages)
        known = self._items.get(key)
        if known is not None:
            item.uses, item.ages = known.uses, known.ages
            known.uses = 0  # they live on in the new one
            self._drop(known)
        if size > self._main_bytes:
            return False
        self._items[key] = item
        self._window.add(item)
        self._shrink_window()
        return key in self._items

    def _shrink_window(self) -> None:
        window = self._window
        while window.bytes > self._window_bytes:
            candidate = next(iter(window.items.values()))
            window.remove(candidate)
            if self._makes_room_for(candidate):
                self._probation.add(candidate)
            else:
                self.rejections += 1
                self._forget(candidate)

    def _makes_room_for(self, candidate: Item[T]) -> bool:
        missing = self._probation.bytes + self._protected.bytes + candidate.size - self._main_bytes
        if missing <= 0:
            return True
        victims: list[Item[T]] = []
        popularity = self._popularity(candidate)
        for victim in self._in_order_of_leaving():
            popularity -= self._popularity(victim)
            if popularity <= 0:
                return False
            victims.append(victim)
            missing -= victim.size
            if missing <= 0:
                break
        self.evictions += len(victims)
        for victim in victims:
            self._drop(victim)
        return True

    def _in_order_of_leaving(self) -> Iterator[Item[T]]:
        yield from self._probation.items.values()
        yield from self._protected.items.values()

    def _popularity(self, item: Item[T]) -> int:
        ages = self._sketch.ages
        if item.ages != ages:  # its own count grows old as the sketch's do
            item.uses >>= min(ages - item.ages, 32)
            item.ages = ages
        return min(MOST, self._sketch.estimate(hash(item.key)) + item.uses)

    def remove(self, key: bytes) -> bool:
        """Drop what is kept under `key`; tells whether there was something."""
        item = self._items.get(key)
        if item is not None:
            self._drop(item)
        return item is not None

    def _drop(self, item: Item[T]) -> None:
        item.segment.remove(item)
        self._forget(item)

    def _forget(self, item: Item[T]) -> None:
        del self._items[item.key]
        if item.uses:
            self._sketch.add(hash(item.key), min(MOST, item.uses))
        self._on_leave(item.value)

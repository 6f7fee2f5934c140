"""Keys and values with Consul's indexes.

A key's ModifyIndex is that of its last change. A prefix's index is the last change of any key below it, deletions
included: each leaves a tombstone, and when tombstones are forgotten, the newest forgotten one becomes the least index
of every prefix, so that no prefix ever goes back.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass, replace

MAX_TOMBSTONES = 2_000
"""Deletions remembered; Consul forgets them after 15 minutes instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value. `lock_index` counts the holders of its lock and serves as a fencing value."""

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int = 0


class KeyValues:
    """The keys, in order. Indexes are handed in, since services share them."""

    def __init__(self, *, max_tombstones: int = MAX_TOMBSTONES) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._tombstones: OrderedDict[str, int] = OrderedDict()
        self._max_tombstones = max_tombstones
        self._forgotten = 0
        self._table_index = 0

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, entries: list[Entry], index: int) -> None:
        """Take over stored entries; whatever was deleted before counts as changed at `index`."""
        self._entries = {entry.key: entry for entry in entries}
        self._order = sorted(self._entries)
        self._forgotten = self._table_index = index

    def find(self, key: str) -> Entry | None:
        """One entry."""
        return self._entries.get(key)

    def index_of(self, key: str) -> int:
        """The index of one key; of one that is not there, that of the whole table."""
        entry = self._entries.get(key)
        return self._table_index if entry is None else entry.modify_index

    def list_below(self, prefix: str) -> tuple[list[Entry], int]:
        """The entries whose keys start with `prefix`, sorted, and the prefix's index."""
        start, end = self._range_below(prefix)
        entries = [self._entries[key] for key in self._order[start:end]]
        if not prefix:
            return entries, self._table_index
        index = max((entry.modify_index for entry in entries), default=0)
        index = max(index, max((at for key, at in self._tombstones.items() if key.startswith(prefix)), default=0))
        return entries, max(index, self._forgotten) if index else self._table_index

    def put(self, key: str, value: bytes, flags: int, index: int, *, cas: int | None = None) -> tuple[bool, bool]:
        """Write an entry at `index`, with `cas` only if that is its ModifyIndex (0: only if there is none).

        Returns:
            Whether the write holds, and whether it changed anything: the same value again does not.
        """
        before = self._entries.get(key)
        if cas is not None and cas != (0 if before is None else before.modify_index):
            return False, False
        if before is None:
            insort(self._order, key)
            self._entries[key] = Entry(key, value, flags, index, index)
            self._tombstones.pop(key, None)
        elif (before.value, before.flags) == (value, flags):
            return True, False
        else:
            self._entries[key] = replace(before, value=value, flags=flags, modify_index=index)
        self._table_index = index
        return True, True

    def delete(self, key: str, index: int, *, cas: int | None = None) -> tuple[bool, bool]:
        """Remove an entry, with `cas` only if that is its ModifyIndex; one that is not there is fine.

        Returns:
            Whether the entry is gone now, and whether it was there.
        """
        before = self._entries.get(key)
        if before is None:
            return True, False
        if cas is not None and cas != before.modify_index:
            return False, False
        del self._order[bisect_left(self._order, key)]
        self._bury(key, index)
        return True, True

    def delete_below(self, prefix: str, index: int) -> list[str]:
        """Remove every entry whose key starts with `prefix`, and return their keys."""
        start, end = self._range_below(prefix)
        keys = self._order[start:end]
        del self._order[start:end]
        for key in keys:
            self._bury(key, index)
        return keys

    def _bury(self, key: str, index: int) -> None:
        del self._entries[key]
        self._tombstones[key] = index
        self._tombstones.move_to_end(key)
        while len(self._tombstones) > self._max_tombstones:
            self._forgotten = self._tombstones.popitem(last=False)[1]
        self._table_index = index

    def _range_below(self, prefix: str) -> tuple[int, int]:
        if not prefix:
            return 0, len(self._order)
        start = bisect_left(self._order, prefix)
        # U+10FFFF is the last code point, and no character, so no key goes on with it.
        return start, bisect_left(self._order, prefix + "\U0010ffff", lo=start)

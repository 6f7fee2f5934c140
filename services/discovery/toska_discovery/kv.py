"""Keys and values with Consul's indexes. What operations make of them is in `key_draft`.

A key's ModifyIndex is that of its last change. A prefix's index is the last change of any key below it, deletions
included: each leaves a tombstone, and when tombstones are forgotten, the newest forgotten one becomes the least index
of every prefix, so that no prefix ever goes back.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Mapping, Set
from dataclasses import dataclass

MAX_TOMBSTONES = 2_000
"""Deletions remembered; Consul forgets them after 15 minutes instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value.

    Attributes:
        lock_index: How often its lock was taken by another holder: a fencing value, which never goes back.
        session: Who holds its lock; empty for nobody.
    """

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int = 0
    session: str = ""


class KeyValues:
    """The keys, in order. Indexes are handed in, since services share them."""

    def __init__(self, *, max_tombstones: int = MAX_TOMBSTONES) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._held: dict[str, set[str]] = {}
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
        self._held = {}
        for entry in entries:
            self._hold(entry)
        self._tombstones.clear()
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

    @property
    def held(self) -> int:
        """How many keys are locked."""
        return sum(map(len, self._held.values()))

    def held_by(self, session_id: str) -> Set[str]:
        """The keys whose lock a session holds."""
        return self._held.get(session_id, frozenset())

    def apply(self, changed: Mapping[str, Entry | None], index: int) -> None:
        """Make changes: entries as they are at `index`, and `None` for those that are gone."""
        gone = {key for key, entry in changed.items() if entry is None}
        if gone:
            self._drop_from_order(gone)
        for key, entry in changed.items():
            self._let_go(self._entries.get(key))
            if entry is None:
                self._bury(key, index)
                continue
            if key not in self._entries:
                insort(self._order, key)
                self._tombstones.pop(key, None)
            self._entries[key] = entry
            self._hold(entry)
        self._table_index = index

    def _drop_from_order(self, gone: set[str]) -> None:
        if len(gone) > 16:
            self._order = [key for key in self._order if key not in gone]
            return
        for key in gone:
            del self._order[bisect_left(self._order, key)]

    def _bury(self, key: str, index: int) -> None:
        del self._entries[key]
        self._tombstones[key] = index
        self._tombstones.move_to_end(key)
        while len(self._tombstones) > self._max_tombstones:
            self._forgotten = self._tombstones.popitem(last=False)[1]

    def _hold(self, entry: Entry) -> None:
        if entry.session:
            self._held.setdefault(entry.session, set()).add(entry.key)

    def _let_go(self, entry: Entry | None) -> None:
        if entry is not None and entry.session:
            held = self._held[entry.session]
            held.discard(entry.key)
            if not held:
                del self._held[entry.session]

    def _range_below(self, prefix: str) -> tuple[int, int]:
        if not prefix:
            return 0, len(self._order)
        start = bisect_left(self._order, prefix)
        # U+10FFFF is the last code point, and no character, so no key goes on with it.
        return start, bisect_left(self._order, prefix + "\U0010ffff", lo=start)

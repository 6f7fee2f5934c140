"""The responses that a worker keeps: found by request, forgotten by URL or route, and never more than so many bytes.

    primary key (route, URL, user) ─┬─► a response that does not vary
                                    └─► names of fields ─ with the request's values of these ─► a response

Memory is a worker's own: shared between processes, every hit would pay for a lock and for a copy out of shared memory,
and the kernel gives each worker its own connections anyway. What all share is the second level, if there is one.
"""

from collections.abc import Callable, Iterable
from typing import Final

from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.tiny_lfu import TinyLfu
from toska_gateway.worker.cache.vary import variant_key
from toska_gateway.worker.http1 import RequestHead

_MOST_MARKS: Final = 8192
UNCACHEABLE_S: Final = 10.0
"""How long it is remembered that a resource's responses are not stored, so that requests do not wait for one."""


class _Varying:
    """The fields that a resource's responses follow from, and the keys of those that are stored."""

    __slots__ = ("keys", "names")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        self.keys: set[bytes] = set()


class ResponseStore:
    """What is stored; `memory_bytes` bounds it, overhead included."""

    def __init__(self, memory_bytes: int) -> None:
        self._entries: TinyLfu[Entry] = TinyLfu(memory_bytes, self._left)
        self._varying: dict[bytes, _Varying] = {}
        self._of_url: dict[bytes, set[bytes]] = {}
        self._of_group: dict[bytes, set[bytes]] = {}
        self._uncacheable: dict[bytes, float] = {}
        self._point()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used(self) -> int:
        """What the responses take."""
        return self._entries.used

    @property
    def evictions(self) -> int:
        """Responses that made room for others, or were not wanted enough to stay."""
        return self._entries.evictions + self._entries.rejections

    def resize(self, memory_bytes: int) -> None:
        """Keep no more than this from now on; what is there is offered to the new store."""
        if memory_bytes == self._entries.capacity:
            return
        kept = list(self._entries.values())
        self._varying.clear()
        self._of_url.clear()
        self._of_group.clear()
        self._entries = TinyLfu(memory_bytes, self._left)
        self._point()
        for entry in kept:
            self.put(entry)

    def _point(self) -> None:
        # Straight to what is asked: a method of ours between would be a tenth of what a hit costs.
        self.find_plain: Callable[[bytes], Entry | None] = self._entries.get
        self.find_if_there: Callable[[bytes], Entry | None] = self._entries.use

    def key_for(self, primary: bytes, head: RequestHead) -> bytes:
        """The key under which the response is found that a request selects."""
        varying = self._varying.get(primary)
        return primary if varying is None else variant_key(primary, varying.names, head)

    def find(self, primary: bytes, head: RequestHead) -> Entry | None:
        """The stored response that a request selects, which is used now."""
        return self._entries.get(self.key_for(primary, head))

    def varies(self, primary: bytes) -> bool:
        """Whether responses are stored for it that some other request would have selected."""
        return primary in self._varying

    def put(self, entry: Entry) -> bool:
        """Keep a response under its `key`; tells whether it is kept for now."""
        primary = entry.primary
        varying = self._varying.get(primary)
        if varying is not None and varying.names != entry.vary:
            return False  # it has come to vary, or to vary by more, while this one was on its way
        if entry.vary:
            self._entries.remove(primary)  # it answered everybody, which the origin has taken back
        if not self._entries.put(entry.key, entry, entry.size):
            return False
        if entry.vary:
            self._varying.setdefault(primary, _Varying(entry.vary)).keys.add(entry.key)
        self._of_url.setdefault(entry.url, set()).add(primary)
        for group in entry.groups or ():
            self._of_group.setdefault(group, set()).add(entry.key)
        return True

    def names_for(self, primary: bytes, named: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The fields by which a new response is told from the others of its resource: all that any of them named.

        A resource that comes to vary by more forgets what it had: that was found under keys that say too little.
        """
        varying = self._varying.get(primary)
        if varying is None:
            return named
        names = tuple(sorted({*varying.names, *named}))
        if names != varying.names:
            for key in list(varying.keys):
                self._entries.remove(key)
        return names

    def remove(self, entry: Entry) -> None:
        """Forget one response, if it is still the one that is stored."""
        if self._entries.peek(entry.key) is entry:
            self._entries.remove(entry.key)

    def _left(self, entry: Entry) -> None:
        for group in entry.groups or ():
            self._leave_group(group, entry.key)
        primary = entry.primary
        varying = self._varying.get(primary)
        if varying is not None:
            varying.keys.discard(entry.key)
            if varying.keys:
                return
            del self._varying[primary]
        primaries = self._of_url.get(entry.url)
        if primaries is not None:
            primaries.discard(primary)
            if not primaries:
                del self._of_url[entry.url]

    def _leave_group(self, group: bytes, key: bytes) -> None:
        keys = self._of_group.get(group)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._of_group[group]

    # -- forgetting

    def forget_url(self, url: bytes) -> int:
        """Forget every response of a URL, whatever route, user and fields it was stored for; returns how many."""
        return self._forget(self._keys_of(url))

    def _keys_of(self, url: bytes) -> list[bytes]:
        keys: list[bytes] = []
        for primary in self._of_url.get(url, ()):
            varying = self._varying.get(primary)
            keys += [primary] if varying is None else [primary, *varying.keys]
        return keys

    def forget_route(self, route: str) -> int:
        """Forget every response of a route; returns how many."""
        return self._forget(entry.key for entry in self._entries.values() if entry.route == route)

    def find_ended(self, groups: Iterable[bytes], urls: Iterable[bytes], routes: frozenset[str]) -> list[Entry]:
        """What is in these groups, has these URLs or these routes, as far as events may end it; each once."""
        keys = {key: None for group in groups for key in self._of_group.get(group, ())}
        for url in urls:
            keys.update(dict.fromkeys(self._keys_of(url)))
        found = [entry for key in keys if (entry := self._entries.peek(key)) is not None and entry.groups is not None]
        if routes:
            found += [entry for entry in self.of_events() if entry.route in routes and entry.key not in keys]
        return found

    def of_events(self) -> list[Entry]:
        """Everything that events may end."""
        return [entry for entry in self._entries.values() if entry.groups is not None]

    def forget_all(self) -> int:
        """Forget everything; returns how many responses that were."""
        self._uncacheable.clear()
        return self._forget(entry.key for entry in self._entries.values())

    def _forget(self, keys: Iterable[bytes]) -> int:
        return sum(self._entries.remove(key) for key in list(keys))

    # -- what is not worth waiting for

    def mark_uncacheable(self, mark: bytes, now: float) -> None:
        """Remember for a while that the response to such requests is not stored."""
        marks = self._uncacheable
        if len(marks) >= _MOST_MARKS:
            marks.clear()
        marks[mark] = now + UNCACHEABLE_S

    def is_uncacheable(self, mark: bytes, now: float) -> bool:
        """Whether the response to such a request was not stored lately."""
        until = self._uncacheable.get(mark)
        if until is None:
            return False
        if until > now:
            return True
        del self._uncacheable[mark]
        return False

    def mark_cacheable(self, mark: bytes) -> None:
        """Forget that."""
        self._uncacheable.pop(mark, None)

"""Operations on keys, drafted: what they make of the keys is known before any of it is done.

A transaction's operations see what those before them made, and are applied whole or dropped; one operation by itself is
a draft of one. The rules are Consul's: a write keeps the lock, who holds it may lock it again, a new holder raises the
LockIndex. Where Consul lets a plain write set the LockIndex back to 0, this keeps it: it is a fencing value.
"""

from collections.abc import Mapping
from dataclasses import replace

from toska_discovery.kv import Entry, KeyValues


class KeyDraft:
    """Changes to `keys` that are to get `index`."""

    def __init__(self, keys: KeyValues, index: int) -> None:
        self._keys = keys
        self._index = index
        self._changed: dict[str, Entry | None] = {}

    @property
    def changed(self) -> Mapping[str, Entry | None]:
        """Entries as they would be, by key; `None` for those that would be gone."""
        return self._changed

    def find(self, key: str) -> Entry | None:
        """One entry, as it would be."""
        return self._changed[key] if key in self._changed else self._keys.find(key)

    def list_below(self, prefix: str) -> list[Entry]:
        """The entries whose keys start with `prefix`, as they would be, sorted."""
        entries = {entry.key: entry for entry in self._keys.list_below(prefix)[0]}
        below = {key: entry for key, entry in self._changed.items() if key.startswith(prefix)}
        if not below:
            return [*entries.values()]
        merged = {**entries, **below}
        return [entry for _, entry in sorted(merged.items()) if entry is not None]

    def put(self, key: str, value: bytes, flags: int) -> Entry:
        """Write a key, whoever holds its lock; the same again changes nothing."""
        before = self.find(key)
        if before is None:
            return self._write(Entry(key, value, flags, self._index, self._index))
        return self._write(replace(before, value=value, flags=flags))

    def put_if(self, key: str, value: bytes, flags: int, modify_index: int) -> Entry | None:
        """Write a key if `modify_index` is its own, or 0 and there is no such key."""
        before = self.find(key)
        if modify_index != (0 if before is None else before.modify_index):
            return None
        return self.put(key, value, flags)

    def lock(self, key: str, value: bytes, flags: int, session_id: str) -> Entry | None:
        """Write a key and take its lock, unless another session holds it; that there is such a session is known."""
        before = self.find(key)
        if before is None:
            return self._write(Entry(key, value, flags, self._index, self._index, 1, session_id))
        if before.session not in {"", session_id}:
            return None
        lock_index = before.lock_index + (before.session != session_id)
        return self._write(replace(before, value=value, flags=flags, session=session_id, lock_index=lock_index))

    def unlock(self, key: str, value: bytes, flags: int, session_id: str) -> Entry | None:
        """Write a key and give its lock back, if this session holds it."""
        before = self.find(key)
        if before is None or before.session != session_id:
            return None
        return self._write(replace(before, value=value, flags=flags, session=""))

    def free(self, key: str) -> None:
        """Take a lock away from whoever holds it."""
        before = self.find(key)
        if before is not None:
            self._write(replace(before, session=""))

    def delete(self, key: str) -> None:
        """Remove a key, whoever holds its lock; one that is not there is fine."""
        if self.find(key) is None:
            return
        if self._keys.find(key) is None:
            del self._changed[key]
        else:
            self._changed[key] = None

    def delete_if(self, key: str, modify_index: int) -> bool:
        """Remove a key if `modify_index` is its own; one that is not there is fine."""
        before = self.find(key)
        if before is not None and before.modify_index != modify_index:
            return False
        self.delete(key)
        return True

    def delete_below(self, prefix: str) -> None:
        """Remove every key that starts with `prefix`."""
        for entry in self.list_below(prefix):
            self.delete(entry.key)

    def _write(self, entry: Entry) -> Entry:
        before = self.find(entry.key)
        if before == entry:
            return entry
        written = self._changed[entry.key] = replace(entry, modify_index=self._index)
        return written

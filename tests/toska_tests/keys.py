"""Single operations on keys, each drafted and applied as the registry does it."""

from toska_discovery.key_draft import KeyDraft
from toska_discovery.kv import KeyValues


def put(
    keys: KeyValues, key: str, value: bytes, flags: int, index: int, *, cas: int | None = None
) -> tuple[bool, bool]:
    """Write a key at `index`; returns whether the write holds, and whether it changed anything."""
    draft = KeyDraft(keys, index)
    done = draft.put(key, value, flags) if cas is None else draft.put_if(key, value, flags, cas)
    return done is not None, _apply(keys, draft, index)


def delete(keys: KeyValues, key: str, index: int, *, cas: int | None = None) -> tuple[bool, bool]:
    """Remove a key at `index`; returns whether it is gone now, and whether it was there."""
    draft = KeyDraft(keys, index)
    done = True
    if cas is None:
        draft.delete(key)
    else:
        done = draft.delete_if(key, cas)
    return done, _apply(keys, draft, index)


def delete_below(keys: KeyValues, prefix: str, index: int) -> list[str]:
    """Remove every key that starts with `prefix`, and return their names."""
    draft = KeyDraft(keys, index)
    draft.delete_below(prefix)
    _apply(keys, draft, index)
    return [*draft.changed]


def _apply(keys: KeyValues, draft: KeyDraft, index: int) -> bool:
    if draft.changed:
        keys.apply(draft.changed, index)
    return bool(draft.changed)

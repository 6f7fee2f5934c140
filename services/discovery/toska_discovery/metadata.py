"""An instance's metadata with versions: who changes it says which version it saw, and the last ones can be read.

The registry's record has the metadata itself, so everybody who asks the registry sees it. Beside it, at
`toska/metadata/<instance id>`, a document counts the versions and remembers the last `HISTORY`. It begins with the
first change. A registration that brings other metadata is found at the next look, and counts as a change too.

    look ──▶ document, pending (compare-and-set) ──▶ record ──▶ document, settled
     ▲              │ somebody else was first
     └──────────────┘                                            a version that was named is refused by 412

What is pending is what holds: whoever meets it, after a crash too, brings the record there before going on. Keys that
begin with `toska-` are the mesh's own and stay as they are.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from toska_common.clock import Clock
from toska_common.contracts.discovery import META_PREFIX, Metadata, MetaKey, MetaValue
from toska_common.errors import Conflict, InvalidInput, PreconditionFailed
from toska_common.problem import field_problems

from toska_discovery.backend import Backend, Document

PREFIX = "toska/metadata/"
HISTORY = 20
MAX_KEYS = 48
MAX_DOCUMENT_BYTES = 256 * 1024
_ATTEMPTS = 8

T = TypeVar("T")

Change = Callable[[Mapping[str, str]], Mapping[str, str]]

_PAIRS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[MetaKey, MetaValue])
_PATCH: TypeAdapter[dict[str, str | None]] = TypeAdapter(dict[MetaKey, MetaValue | None])


class _Version(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int
    metadata: dict[str, str]
    updated_at: datetime | None = None


class _History(BaseModel):
    """The document; the newest version comes first."""

    model_config = ConfigDict(frozen=True)

    versions: tuple[_Version, ...]
    pending: bool = False


class MetadataVersions:
    """Reads and changes the metadata of instances of one registry."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._locks = WeakValueDictionary[str, anyio.Lock]()

    async def get(self, instance_id: str) -> Metadata:
        """The present metadata and its version."""
        history, _ = await self._look(instance_id)
        return _contract(instance_id, history.versions[0])

    async def list_history(self, instance_id: str) -> list[Metadata]:
        """The last versions, the present one first."""
        history, _ = await self._look(instance_id)
        return [_contract(instance_id, version) for version in history.versions]

    async def change(self, instance_id: str, change: Change, expected: frozenset[int] | None) -> Metadata:
        """Make new metadata of what there is; the same again is no new version.

        Args:
            instance_id: Whose.
            change: Makes it, and may be called more than once.
            expected: Versions that the change may be made to; any if `None`.

        Raises:
            PreconditionFailed: The present version is none of `expected`.
            InvalidInput: What `change` made is wrong.
            Conflict: Others kept changing it.
        """
        lock = self._locks.setdefault(instance_id, anyio.Lock())
        async with lock:  # others in this process would only lose the race for the document, again and again
            for _ in range(_ATTEMPTS):
                changed = await self._try(instance_id, change, expected)
                if changed is not None:
                    return _contract(instance_id, changed)
        raise Conflict("the metadata is being changed by others all the time; try again", id=instance_id)

    async def _try(self, instance_id: str, change: Change, expected: frozenset[int] | None) -> _Version | None:
        # An amendment that changes nothing tells whether there can be one, before anything is written.
        await self._backend.amend(instance_id, lambda meta: meta)
        history, index = await self._look(instance_id)
        present = history.versions[0]
        if history.pending:
            await self._settle(instance_id, history, index)
            return None
        if expected is not None and present.version not in expected:
            raise PreconditionFailed(
                f"the metadata is at version {present.version} by now", id=instance_id, version=present.version
            )
        wanted = dict(change(present.metadata))
        if wanted == present.metadata:
            return present
        if len(wanted) > MAX_KEYS:
            raise _invalid([{"field": "(root)", "reason": f"{len(wanted)} keys, and {MAX_KEYS} is the most"}])
        version = _Version(version=present.version + 1, metadata=wanted, updated_at=self._clock.now())
        begun = _History(versions=(version, *history.versions), pending=True)
        written = _encode(begun)
        if not await self._backend.documents.put(PREFIX + instance_id, written, index):
            return None
        found = await self._backend.documents.find(PREFIX + instance_id)
        if found is not None and found.value == written:
            await self._settle(instance_id, begun, found.index)
        return version  # else somebody who met it has brought it there already

    async def _settle(self, instance_id: str, history: _History, index: int) -> None:
        await self._apply(instance_id, history)
        settled = history.model_copy(update={"pending": False})
        if await self._backend.documents.put(PREFIX + instance_id, _encode(settled), index):
            return
        # Somebody went on from here meanwhile, and this may have undone what they wrote.
        newer = _decode(await self._backend.documents.find(PREFIX + instance_id))
        if newer is not None:
            await self._apply(instance_id, newer)

    async def _apply(self, instance_id: str, history: _History) -> None:
        wanted = history.versions[0].metadata
        await self._backend.amend(instance_id, lambda meta: {**_own(meta), **wanted})

    async def forget(self, instance_id: str) -> None:
        """The instance is gone for good."""
        await self._backend.documents.delete(PREFIX + instance_id)

    async def _look(self, instance_id: str) -> tuple[_History, int]:
        # The document first: a change between the two reads is then seen as the next version, which it is.
        document = await self._backend.documents.find(PREFIX + instance_id)
        member = await self._backend.get_member(instance_id)
        metadata = {key: value for key, value in member.meta.items() if not key.startswith(META_PREFIX)}
        history = _decode(document)
        if history is None:
            first = _Version(version=1, metadata=metadata, updated_at=member.registered_at)
            return _History(versions=(first,)), 0 if document is None else document.index
        index = 0 if document is None else document.index
        newest = history.versions[0]
        if not history.pending and newest.metadata != metadata:
            registered = _Version(version=newest.version + 1, metadata=metadata)
            return _History(versions=(registered, *history.versions)), index
        return history, index


def read_replacement(body: object, *, field: str = "body") -> dict[str, str]:
    """The metadata of a PUT, checked; errors name what is below `field`.

    Raises:
        InvalidInput: Names every wrong field.
    """
    return _own_keys_only(_validate(_PAIRS, body, field), field)


def read_patch(body: object, *, field: str = "body") -> dict[str, str | None]:
    """The changes of a PATCH (RFC 7396: `null` removes a key), checked; errors name what is below `field`.

    Raises:
        InvalidInput: Names every wrong field.
    """
    return _own_keys_only(_validate(_PATCH, body, field), field)


def merge(metadata: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """Apply a patch."""
    merged = {**metadata, **patch}
    return {key: value for key, value in merged.items() if value is not None}


def _validate(adapter: TypeAdapter[T], body: object, field: str) -> T:
    try:
        return adapter.validate_python(body, strict=True)
    except ValidationError as error:
        raise _invalid(field_problems(error.errors()), field) from error


def _own_keys_only(pairs: dict[str, T], field: str) -> dict[str, T]:
    reason = f"keys that begin with {META_PREFIX} are the mesh's own; register again to change them"
    problems = [{"field": key, "reason": reason} for key in pairs if key.startswith(META_PREFIX)]
    if problems:
        raise _invalid(problems, field)
    return pairs


def _invalid(problems: list[dict[str, str]], field: str = "body") -> InvalidInput:
    located = [
        {**item, "field": field if item["field"] == "(root)" else f"{field}.{item['field']}"} for item in problems
    ]
    return InvalidInput("; ".join(f"{item['field']}: {item['reason']}" for item in located), problems=located)


def _own(meta: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key.startswith(META_PREFIX)}


def _encode(history: _History) -> bytes:
    versions = history.versions[:HISTORY]
    while True:
        document = history.model_copy(update={"versions": versions}).model_dump_json().encode()
        if len(document) <= MAX_DOCUMENT_BYTES or len(versions) == 1:
            return document
        versions = versions[:-1]


def _decode(document: Document | None) -> _History | None:
    if document is None:
        return None
    try:
        history = _History.model_validate_json(document.value)
    except ValidationError:
        return None  # somebody else's key; the next change replaces it
    return history if history.versions else None


def _contract(instance_id: str, version: _Version) -> Metadata:
    return Metadata(id=instance_id, version=version.version, metadata=version.metadata, updated_at=version.updated_at)

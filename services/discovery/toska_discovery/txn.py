"""Transactions: operations that see what those before them made, and are done all or not at all.

Each operation either gives results or says what is wrong. One thing wrong, and nothing was done; all that is wrong is
told, so that a caller needs one answer to know. The words are Consul's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toska_discovery.catalog_txn import CatalogOperation, CatalogResult, CatalogStage, Wrong
from toska_discovery.changes import Changes
from toska_discovery.coordination import Coordination
from toska_discovery.errors import SessionRefused
from toska_discovery.key_draft import KeyDraft
from toska_discovery.kv import Entry
from toska_discovery.session import Session


@dataclass(frozen=True, slots=True)
class KeyOperation:
    """One operation on a key, or on all keys that start with it.

    Attributes:
        index: The ModifyIndex that the key must have, of verbs that ask for one.
    """

    verb: str
    key: str
    value: bytes = b""
    flags: int = 0
    index: int = 0
    session: str = ""

    @property
    def writes(self) -> bool:
        """Whether it may change something; a verb that there is not changes nothing."""
        return self.verb in _WRITES


@dataclass(frozen=True, slots=True)
class KeyResult:
    """A key as it is after an operation; only reads show its value."""

    entry: Entry
    with_value: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an operation, by its place in the transaction."""

    operation: int
    what: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results, or problems and no changes."""

    results: Sequence[KeyResult | CatalogResult]
    problems: Sequence[Problem]
    changes: Changes


Operation = KeyOperation | CatalogOperation


def run(operations: Sequence[Operation], state: Coordination, now: float, catalog: CatalogStage) -> Outcome:
    """Do all of `operations`, in order, at one index, or none.

    Sessions that lose their node or check on the way take no locks any more, and end after the last operation.
    """
    problems = _foresee(operations, state, now)
    if problems:
        return Outcome((), problems, Changes())
    memory = catalog.remember(operation for operation in operations if not isinstance(operation, KeyOperation))
    try:
        outcome = _run(operations, state, catalog)
    except BaseException:
        catalog.undo(memory)
        raise
    if outcome.problems:
        catalog.undo(memory)
    return outcome


def _run(operations: Sequence[Operation], state: Coordination, catalog: CatalogStage) -> Outcome:
    changes = Changes()
    draft = state.draft(changes)
    results: list[KeyResult | CatalogResult] = []
    problems: list[Problem] = []
    lost: dict[str, Session] = {}
    for number, operation in enumerate(operations):
        try:
            if isinstance(operation, KeyOperation):
                if operation.verb == "lock" and operation.session.lower() in lost:
                    raise Wrong(f'invalid session "{operation.session}"')
                results += _VERBS.get(operation.verb, _refuse)(operation, draft, state)
            else:
                results += catalog.do(operation, changes)
                lost.update((session.id, session) for session in state.invalid_by(changes))
        except (Wrong, SessionRefused) as error:
            problems.append(Problem(number, str(error)))
    if problems:
        return Outcome((), problems, Changes())
    state.commit(draft, changes)
    state.invalidate(lost.values(), changes)
    return Outcome(results, (), changes)


def _foresee(operations: Sequence[Operation], state: Coordination, now: float) -> list[Problem]:
    """What is wrong whatever the keys hold. Consul looks at that first, and at nothing else where there is some."""
    problems: list[Problem] = []
    for number, operation in enumerate(operations):
        if not isinstance(operation, KeyOperation):
            if operation.flaw:
                problems.append(Problem(number, operation.flaw))
        elif not operation.key and operation.verb != "delete-tree":
            problems.append(Problem(number, "Must provide key"))
        elif operation.verb == "lock" and state.is_delayed(operation.key, now):
            problems.append(Problem(number, f'failed to lock key "{operation.key}" due to lock delay'))
    return problems


_Verb = Callable[[KeyOperation, KeyDraft, Coordination], Sequence[KeyResult]]


def _set(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    return [KeyResult(draft.put(operation.key, operation.value, operation.flags))]


def _cas(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    entry = draft.put_if(operation.key, operation.value, operation.flags, operation.index)
    return _done(entry, f'failed to set key "{operation.key}", index is stale')


def _lock(operation: KeyOperation, draft: KeyDraft, state: Coordination) -> Sequence[KeyResult]:
    session = state.require(operation.session)
    entry = draft.lock(operation.key, operation.value, operation.flags, session.id)
    return _done(entry, f'failed to lock key "{operation.key}", lock is already held')


def _unlock(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    if not operation.session:
        raise Wrong("missing session")
    entry = draft.unlock(operation.key, operation.value, operation.flags, operation.session.lower())
    return _done(entry, f'failed to unlock key "{operation.key}", lock isn\'t held, or is held by another session')


def _get(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    entry = draft.find(operation.key)
    if entry is None:
        raise Wrong(f'key "{operation.key}" doesn\'t exist')
    return [KeyResult(entry, with_value=True)]


def _get_tree(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    return [KeyResult(entry, with_value=True) for entry in draft.list_below(operation.key)]


def _check_index(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    entry = draft.find(operation.key)
    if entry is None:
        raise Wrong(f'failed to check index, key "{operation.key}" doesn\'t exist')
    if entry.modify_index != operation.index:
        current = f"current modify index {entry.modify_index} != {operation.index}"
        raise Wrong(f'failed index check for key "{operation.key}", {current}')
    return [KeyResult(entry)]


def _check_session(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    entry = draft.find(operation.key)
    if entry is None:
        raise Wrong(f'failed to check session, key "{operation.key}" doesn\'t exist')
    if entry.session != operation.session.lower():
        current = f'current session "{entry.session}" != "{operation.session}"'
        raise Wrong(f'failed session check for key "{operation.key}", {current}')
    return [KeyResult(entry)]


def _check_not_exists(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    if draft.find(operation.key) is not None:
        raise Wrong(f'key "{operation.key}" exists')
    return ()


def _delete(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    draft.delete(operation.key)
    return ()


def _delete_tree(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    draft.delete_below(operation.key)
    return ()


def _delete_cas(operation: KeyOperation, draft: KeyDraft, _: Coordination) -> Sequence[KeyResult]:
    if not draft.delete_if(operation.key, operation.index):
        raise Wrong(f'failed to delete key "{operation.key}", index is stale')
    return ()


def _refuse(operation: KeyOperation, _: KeyDraft, __: Coordination) -> Sequence[KeyResult]:
    raise Wrong(f'unknown KV verb "{operation.verb}"')


def _done(entry: Entry | None, problem: str) -> Sequence[KeyResult]:
    if entry is None:
        raise Wrong(problem)
    return [KeyResult(entry)]


_WRITING: Mapping[str, _Verb] = {
    "set": _set, "cas": _cas, "lock": _lock, "unlock": _unlock,
    "delete": _delete, "delete-tree": _delete_tree, "delete-cas": _delete_cas,
}  # fmt: skip
_READING: Mapping[str, _Verb] = {
    "get": _get, "get-tree": _get_tree,
    "check-index": _check_index, "check-session": _check_session, "check-not-exists": _check_not_exists,
}  # fmt: skip
_VERBS = {**_WRITING, **_READING}
_WRITES = frozenset(_WRITING)

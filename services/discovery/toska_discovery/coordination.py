"""Sessions and what hangs on them: locks of keys, and prepared queries.

A lock is a key with the id of a session in it. When a session comes to its end, in whatever way, its locks are given
back or their keys deleted in the same change, and nobody can lock those keys for its lock-delay: whoever held them may
not know yet that it has lost them. A release, which its holder knows of, has no delay.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from toska_common.contracts.discovery import Health

from toska_discovery.changes import QUERIES, SESSIONS, Changes, node_sessions_topic, session_topic
from toska_discovery.errors import QueryRefused, SessionRefused
from toska_discovery.key_draft import KeyDraft
from toska_discovery.kv import Entry, KeyValues
from toska_discovery.lease import LeaseTime
from toska_discovery.query import PreparedQuery, Queries
from toska_discovery.session import MAX_LOCK_DELAY_S, Behavior, EndReason, Session, Sessions


class Catalog(Protocol):
    """What is needed of the registry around: its index, and what sessions are bound to."""

    def upcoming(self, changes: Changes) -> int:
        """The index that something has which joins `changes`."""
        ...

    def take_index(self, changes: Changes) -> int:
        """The same, from now on taken: all that one event changes here has one index."""
        ...

    def has_node(self, node: str) -> bool:
        """Whether there is a node of that name."""
        ...

    def verdict_on(self, node: str, check_id: str) -> Health | None:
        """The state of a node's check, its instances' included; `None` if there is none of the id."""
        ...


class Coordination:
    """Keys, sessions, and the delays of locks that were lost. Its time is the registry's lease time."""

    def __init__(self, catalog: Catalog, time: LeaseTime) -> None:
        self.keys = KeyValues()
        self.sessions = Sessions()
        self.queries = Queries()
        self._catalog = catalog
        self._time = time
        self._delays: dict[str, float] = {}

    def load(
        self,
        keys: list[Entry],
        sessions: Iterable[Session],
        delays: Iterable[tuple[str, float]],
        index: int,
        now: float,
        *,
        queries: Iterable[PreparedQuery] = (),
    ) -> None:
        """Take over what was stored; every session has its whole life before it, and every delay its whole length."""
        moment = self._time.at(now)
        self.keys.load(keys, index)
        self.sessions = Sessions(index)
        for session in sessions:
            self.sessions.add(session, moment)
        self.sessions.index = index
        self._delays = {key: moment + delay_s for key, delay_s in delays}
        self.queries = Queries(queries, index)

    def forget(self, changes: Changes) -> None:
        """Say of all there is that it is gone, before other contents are loaded in its place."""
        changes.keys.update(dict.fromkeys(entry.key for entry in self.keys.list_below("")[0]))
        changes.delays.update(dict.fromkeys(self._delays))
        changes.queries.update(dict.fromkeys(self.queries.by_id))
        for session in self.sessions.by_id.values():
            _note(session, None, changes)

    def tell(self, changes: Changes) -> None:
        """Say of all there is that it is there."""
        changes.keys.update({entry.key: entry for entry in self.keys.list_below("")[0]})
        changes.queries.update(self.queries.by_id)
        for session in self.sessions.by_id.values():
            _note(session, session, changes)

    # Keys.

    def draft(self, changes: Changes) -> KeyDraft:
        """A draft of what is to join `changes`."""
        return KeyDraft(self.keys, self._catalog.upcoming(changes))

    def commit(self, draft: KeyDraft, changes: Changes) -> None:
        """Make a draft true."""
        if draft.changed:
            self.keys.apply(draft.changed, self._catalog.take_index(changes))
            changes.keys.update(draft.changed)

    def put_key(self, key: str, value: bytes, flags: int = 0, *, cas: int | None = None) -> tuple[bool, Changes]:
        """Write a key, with `cas` only if that is its ModifyIndex (0: only if it does not exist)."""
        if cas is None:
            return self._edit(lambda draft: draft.put(key, value, flags))
        return self._edit(lambda draft: draft.put_if(key, value, flags, cas))

    def acquire(self, key: str, value: bytes, flags: int, session_id: str, now: float) -> tuple[bool, Changes]:
        """Write a key and take its lock; false if another session has it, or had it until just now.

        Raises:
            SessionRefused: There is no such session.
        """
        session = self.require(session_id)
        if self.is_delayed(key, now):
            return False, Changes()
        return self._edit(lambda draft: draft.lock(key, value, flags, session.id))

    def release(self, key: str, value: bytes, flags: int, session_id: str) -> tuple[bool, Changes]:
        """Write a key and give its lock back; false if the session does not hold it.

        Raises:
            SessionRefused: It is the id of nothing.
        """
        holder = _given(session_id)
        return self._edit(lambda draft: draft.unlock(key, value, flags, holder))

    def delete_key(self, key: str, *, cas: int | None = None) -> tuple[bool, Changes]:
        """Remove a key, with `cas` only if that is its ModifyIndex; one that does not exist is fine."""
        if cas is None:
            return self._edit(lambda draft: draft.delete(key) is None)
        return self._edit(lambda draft: draft.delete_if(key, cas))

    def delete_keys_below(self, prefix: str) -> Changes:
        """Remove every key that starts with `prefix`."""
        return self._edit(lambda draft: draft.delete_below(prefix) is None)[1]

    def is_delayed(self, key: str, now: float) -> bool:
        """Whether nobody may lock a key yet, since its last holder may not know that it has lost it."""
        return self._delays.get(key, 0.0) > self._time.at(now)

    # Sessions.

    def require(self, session_id: str) -> Session:
        """The session that is to take a lock.

        Raises:
            SessionRefused: There is none of the id.
        """
        session = self.sessions.find(_given(session_id))
        if session is None:
            raise SessionRefused(f'invalid session "{session_id}"')
        return session

    def create_session(self, session: Session, now: float) -> Changes:
        """List a session, at the indexes that it gets here.

        Raises:
            SessionRefused: Its node or one of its checks is not there, or the check is critical.
        """
        if not self._catalog.has_node(session.node):
            raise SessionRefused("Missing node registration")
        for check_id in session.check_ids:
            verdict = self._catalog.verdict_on(session.node, check_id)
            if verdict is None:
                raise SessionRefused(f"Missing check '{check_id}' registration")
            if verdict is Health.CRITICAL:
                raise SessionRefused(f"Check '{check_id}' is in critical state")
        changes = Changes()
        index = self._catalog.take_index(changes)
        created = replace(session, create_index=index, modify_index=index)
        self.sessions.add(created, self._time.at(now))
        _note(created, created, changes)
        return changes

    def renew_session(self, session_id: str, now: float) -> Session | None:
        """Make a session good for one more life, in memory alone; `None` if there is none of the id."""
        session = self.sessions.find(session_id)
        if session is not None:
            self.sessions.renew(session, self._time.at(now))
        return session

    def destroy_session(self, session_id: str, now: float) -> Changes:
        """End a session; none of the id is fine."""
        changes = Changes()
        session = self.sessions.find(session_id)
        if session is not None:
            self._end(session, EndReason.DESTROYED, self._time.at(now), changes)
        return changes

    # Prepared queries.

    def put_query(self, query: PreparedQuery, *, update: bool) -> Changes:
        """List a query, at the index that it gets here, or put it in the place of the one of its id.

        Raises:
            QueryRefused: There is none to update, or it could be mistaken for another.
            SessionRefused: It is bound to a session that there is not.
        """
        before = self.queries.find(query.id)
        if update and before is None:
            raise QueryRefused(f"Cannot modify non-existent prepared query: '{query.id}'")
        if query.session:
            self.require(query.session)
        changes = Changes()
        index = self._catalog.upcoming(changes)
        created = index if before is None else before.create_index
        listed = replace(query, create_index=created, modify_index=index)
        self.queries.put(listed)
        self._catalog.take_index(changes)
        changes.queries[query.id] = listed
        changes.topics.add(QUERIES)
        return changes

    def drop_query(self, query_id: str) -> Changes:
        """Take a query off the list.

        Raises:
            QueryRefused: There is none of the id.
        """
        query = self.queries.find(query_id)
        if query is None:
            raise QueryRefused(f"Cannot modify non-existent prepared query: '{query_id}'")
        changes = Changes()
        self._drop_query(query, changes)
        return changes

    # What ends a session.

    def settle(self, changes: Changes) -> None:
        """End the sessions whose checks or nodes have turned critical or gone by what is in `changes`."""
        self.invalidate(self.invalid_by(changes), changes)

    def invalid_by(self, changes: Changes) -> list[Session]:
        """Those sessions; one may be there twice."""
        found: list[Session] = []
        for (node, check_id), verdict in changes.checks.items():
            if verdict in {None, Health.CRITICAL}:
                found += self.sessions.list_bound(node, check_id)
        for node, known in changes.nodes.items():
            if known is None:
                found += self.sessions.list_on(node)
        return found

    def invalidate(self, sessions: Iterable[Session], changes: Changes) -> None:
        """End sessions that have lost what they were bound to."""
        for session in sessions:
            if self.sessions.find(session.id) is not None:
                self._end(session, EndReason.INVALIDATED, self._time.latest, changes)

    def sweep(self, moment: float, changes: Changes) -> None:
        """End the sessions that were not renewed in time, and the delays that are over."""
        for session in self.sessions.take_expired(moment):
            self._end(session, EndReason.EXPIRED, moment, changes)
        for key in [key for key, until in self._delays.items() if until <= moment]:
            del self._delays[key]
            changes.delays[key] = None

    def _end(self, session: Session, reason: EndReason, moment: float, changes: Changes) -> None:
        index = self._catalog.take_index(changes)
        self.sessions.remove(session, index)
        _note(session, None, changes)
        changes.ended.append((session, reason))
        for query in self.queries.bound_to(session.id):
            self._drop_query(query, changes)
        held = sorted(self.keys.held_by(session.id))
        draft = self.draft(changes)
        for key in held:
            if session.behavior is Behavior.DELETE:
                draft.delete(key)
            else:
                draft.free(key)
        self.commit(draft, changes)
        delay_s = min(session.lock_delay_s, MAX_LOCK_DELAY_S)
        if delay_s > 0:
            self._delays.update(dict.fromkeys(held, moment + delay_s))
            changes.delays.update(dict.fromkeys(held, delay_s))

    def _drop_query(self, query: PreparedQuery, changes: Changes) -> None:
        self.queries.drop(query.id, self._catalog.take_index(changes))
        changes.queries[query.id] = None
        changes.topics.add(QUERIES)

    def _edit(self, operation: Callable[[KeyDraft], object]) -> tuple[bool, Changes]:
        changes = Changes()
        draft = self.draft(changes)
        done = bool(operation(draft))
        self.commit(draft, changes)
        return done, changes


def _given(session_id: str) -> str:
    if not session_id:
        raise SessionRefused("missing session")
    return session_id.lower()


def _note(session: Session, now: Session | None, changes: Changes) -> None:
    changes.sessions[session.id] = now
    changes.topics |= {SESSIONS, session_topic(session.id), node_sessions_topic(session.node)}

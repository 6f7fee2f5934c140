"""Sessions: claims that locks hang on, and what they live on.

    created ──▶ live ──renewed──▶ live         good for `GRACE` TTLs from then
                 │ destroyed, not renewed, or a check of it critical or gone
                 ▼
               ended                           its locks are released, or their keys deleted (`Behavior`)

Who may hold what, and what ends with a session, is the business of `coordination`.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

K = TypeVar("K")

SERF_HEALTH = "serfHealth"
"""The check that every node has; a session is bound to its node's unless it says otherwise."""
DEFAULT_LOCK_DELAY_S = 15.0
MAX_LOCK_DELAY_S = 60.0
"""Longest that the keys of a session that came to grief are kept from others, whatever it asked for."""
MIN_TTL_S, MAX_TTL_S = 10.0, 86_400.0
GRACE = 1.5
"""TTLs that a session lives without being renewed. Consul promises one at least, and takes up to two."""


class Behavior(StrEnum):
    """What becomes of the keys that a session holds when it ends."""

    RELEASE = "release"
    DELETE = "delete"


class EndReason(StrEnum):
    """Why a session ended, in the words of the log."""

    DESTROYED = "session_destroyed"
    EXPIRED = "session_expired"
    INVALIDATED = "session_invalidated"


@dataclass(frozen=True, slots=True)
class Session:
    """A claim of somebody who is alive for as long as it is renewed and its checks do not turn critical.

    Attributes:
        node: Name of the node that it is bound to.
        ttl: As it was asked for; empty for a session that need not be renewed.
        ttl_s: The same in seconds; 0 for none.
        checks: Of the older way to name checks; the node's and services' checks alike.
        node_checks: Ids of checks, as they were asked for; `None` if by `null`.
        service_checks: Likewise.
    """

    id: str
    node: str
    name: str = ""
    ttl: str = ""
    ttl_s: float = 0.0
    lock_delay_s: float = DEFAULT_LOCK_DELAY_S
    behavior: Behavior = Behavior.RELEASE
    checks: tuple[str, ...] = ()
    node_checks: tuple[str, ...] | None = (SERF_HEALTH,)
    service_checks: tuple[str, ...] | None = None
    create_index: int = 0
    modify_index: int = 0

    @property
    def check_ids(self) -> tuple[str, ...]:
        """Every check that it is bound to, each once."""
        return tuple(dict.fromkeys((*self.checks, *(self.node_checks or ()), *(self.service_checks or ()))))


class Sessions:
    """The live sessions, by id, by node and by check, and until when each of them is good.

    Attributes:
        index: Of the last change of any of them.
    """

    def __init__(self, index: int = 0) -> None:
        self._sessions: dict[str, Session] = {}
        self._by_node: dict[str, set[str]] = {}
        self._by_check: dict[tuple[str, str], set[str]] = {}
        self._deadlines: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self.index = index

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def by_id(self) -> Mapping[str, Session]:
        """All of them."""
        return self._sessions

    def find(self, session_id: str) -> Session | None:
        """One session; ids are told apart as the numbers that they are, in whatever case they are written."""
        return self._sessions.get(session_id) or self._sessions.get(session_id.lower())

    def list_on(self, node: str) -> list[Session]:
        """The sessions of a node, by id."""
        return [self._sessions[session_id] for session_id in sorted(self._by_node.get(node, ()))]

    def list_bound(self, node: str, check_id: str) -> list[Session]:
        """The sessions that a check takes down with it, by id."""
        bound = self._by_check.get((node, check_id))
        return [self._sessions[session_id] for session_id in sorted(bound)] if bound else []

    def add(self, session: Session, moment: float) -> None:
        """List a session; `moment` is the lease time of its creation."""
        self._sessions[session.id] = session
        self._by_node.setdefault(session.node, set()).add(session.id)
        for check_id in session.check_ids:
            self._by_check.setdefault((session.node, check_id), set()).add(session.id)
        if session.ttl_s:
            self._deadlines[session.id] = deadline = moment + GRACE * session.ttl_s
            heapq.heappush(self._queue, (deadline, session.id))
        self.index = session.modify_index

    def renew(self, session: Session, moment: float) -> None:
        """Make a session good for one more life. Its entry in the queue is looked at again when its time comes."""
        if session.ttl_s:
            self._deadlines[session.id] = moment + GRACE * session.ttl_s

    def remove(self, session: Session, index: int) -> None:
        """Take a session off the list."""
        del self._sessions[session.id]
        _discard(self._by_node, session.node, session.id)
        for check_id in session.check_ids:
            _discard(self._by_check, (session.node, check_id), session.id)
        self._deadlines.pop(session.id, None)
        self.index = index
        if len(self._queue) > 2 * len(self._deadlines) + 64:
            self._queue = [(deadline, session_id) for session_id, deadline in self._deadlines.items()]
            heapq.heapify(self._queue)

    def take_expired(self, moment: float) -> Iterator[Session]:
        """Each session that was not renewed in time; the caller removes it."""
        while self._queue and self._queue[0][0] <= moment:
            _, session_id = heapq.heappop(self._queue)
            deadline = self._deadlines.get(session_id)
            if deadline is None:
                continue
            if deadline > moment:
                heapq.heappush(self._queue, (deadline, session_id))
            else:
                yield self._sessions[session_id]


def _discard(index: dict[K, set[str]], key: K, member: str) -> None:
    members = index[key]
    members.discard(member)
    if not members:
        del index[key]

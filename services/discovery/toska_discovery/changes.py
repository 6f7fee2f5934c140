"""What an event did to the registry: for the store, for those who wait, and for the log."""

from dataclasses import dataclass, field
from enum import StrEnum

from toska_common.contracts.discovery import Health

from toska_discovery.check import CheckDefinition
from toska_discovery.instance import Instance
from toska_discovery.kv import Entry
from toska_discovery.node import Node
from toska_discovery.query import PreparedQuery
from toska_discovery.session import EndReason, Session

SERVICES = "services"
"""Topic of the list of services: every registration, change or removal of an instance."""
CHECKS = "checks"
"""Topic of all checks: every change of a verdict, and every check that comes or goes."""
NODES = "nodes"
"""Topic of the list of nodes: every one that comes, changes or goes, its checks aside."""
QUERIES = "queries"
"""Topic of the prepared queries."""
SESSIONS = "sessions"
"""Topic of the list of sessions: every one that is created or ends."""


def service_topic(name: str) -> str:
    """Topic of one service: its instances and their verdicts."""
    return f"service/{name}"


def session_topic(session_id: str) -> str:
    """Topic of one session."""
    return f"session/{session_id}"


def node_sessions_topic(node: str) -> str:
    """Topic of the sessions of a node."""
    return f"sessions/{node}"


class Happening(StrEnum):
    """What became of an instance, in the words of the log."""

    REGISTERED = "instance_registered"
    UPDATED = "instance_updated"
    DEREGISTERED = "instance_deregistered"
    EVICTED = "instance_evicted"
    LAPSED = "lease_lapsed"
    REMOVED = "instance_removed"
    HEALTH = "instance_health_changed"


@dataclass(slots=True)
class Changes:
    """Everything that one event changed; false if it changed nothing.

    Attributes:
        index: The registry's index afterwards; 0 if nothing changed.
        instances: By key, as they are now; `None` for those that are gone.
        nodes: Likewise, by name.
        keys: Likewise, by key.
        probes: Checks that want to be probed from now on, or in another way, by id; `None` for those that no longer do.
        checks: Verdicts that changed or came to be, by node and check id; `None` of checks that are gone.
        sessions: By id, as they are now; `None` for those that have ended, which `ended` has with the reason.
        queries: Prepared queries by id, as they are now; `None` for those that are gone.
        delays: Keys that cannot be locked for so many seconds; `None` for those that can be again.
        topics: What to wake watchers of; those of keys follow from `keys`.
        happenings: What to log and count.
    """

    index: int = 0
    instances: dict[str, Instance | None] = field(default_factory=dict[str, Instance | None])
    nodes: dict[str, Node | None] = field(default_factory=dict[str, Node | None])
    probes: dict[str, CheckDefinition | None] = field(default_factory=dict[str, CheckDefinition | None])
    keys: dict[str, Entry | None] = field(default_factory=dict[str, Entry | None])
    checks: dict[tuple[str, str], Health | None] = field(default_factory=dict[tuple[str, str], Health | None])
    sessions: dict[str, Session | None] = field(default_factory=dict[str, Session | None])
    queries: dict[str, PreparedQuery | None] = field(default_factory=dict[str, PreparedQuery | None])
    delays: dict[str, float | None] = field(default_factory=dict[str, float | None])
    ended: list[tuple[Session, EndReason]] = field(default_factory=list[tuple[Session, EndReason]])
    topics: set[str] = field(default_factory=set[str])
    happenings: list[tuple[Happening, Instance]] = field(default_factory=list[tuple[Happening, Instance]])

    def __bool__(self) -> bool:
        return self.index > 0

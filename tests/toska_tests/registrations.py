"""Instances and checks for tests of the registry's state machine."""

from datetime import UTC, datetime

from toska_common.contracts.discovery import Health
from toska_discovery.instance import CheckDefinition, ServiceDefinition

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TTL_S, REMOVAL_S = 15.0, 60.0


def service(
    own_id: str = "orders-1", name: str = "orders", port: int = 9001, *, tags: tuple[str, ...] = (), **meta: str
) -> ServiceDefinition:
    """An instance on this machine."""
    return ServiceDefinition(own_id, name, "127.0.0.1", port, tags, meta)


def check(
    own_id: str = "service:orders-1",
    *,
    status: Health = Health.PASSING,
    ttl_s: float = TTL_S,
    removal_after_s: float | None = REMOVAL_S,
    notes: str = "",
) -> CheckDefinition:
    """A TTL check."""
    return CheckDefinition(own_id, "lease", ttl_s, notes, status, removal_after_s)

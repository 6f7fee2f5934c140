"""Instances and checks for tests of the registry's state machine."""

from datetime import UTC, datetime

from toska_common.contracts.discovery import Health
from toska_discovery.check import CheckDefinition, CheckKind, Probe
from toska_discovery.instance import ServiceDefinition

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


def probed(
    own_id: str = "service:orders-1",
    *,
    status: Health = Health.CRITICAL,
    target: str = "127.0.0.1:9001",
    removal_after_s: float | None = REMOVAL_S,
) -> CheckDefinition:
    """A TCP check."""
    probe = Probe(target, interval_s=10.0)
    return CheckDefinition(own_id, "port", None, "", status, removal_after_s, CheckKind.TCP, probe)

"""Alias checks: as well as the worst check of another instance, or of a node."""

from collections.abc import Mapping

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check
from toska_discovery.probing.verdict import Verdict


def alias_verdict(checks: Mapping[str, Check]) -> Verdict:
    """The verdict over the checks that an alias follows, in Consul's words."""
    worst: Check | None = None
    for _, check in sorted(checks.items()):
        if check.status is Health.CRITICAL:
            return _failing(check)
        if check.status is Health.WARNING and worst is None:
            worst = check
    if worst is not None:
        return _failing(worst)
    return Verdict(Health.PASSING, "All checks passing." if checks else "No checks found.")


def not_found(service_id: str, node: str) -> Verdict:
    """The verdict of an alias whose instance is not there."""
    return Verdict(Health.CRITICAL, f"Service {service_id} could not be found on node {node}")


def _failing(check: Check) -> Verdict:
    return Verdict(check.status, f'Aliased check "{check.definition.name}" failing: {check.output}')

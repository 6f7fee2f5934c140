"""How the newest snapshot differs from those before it, bounded: what a gateway lacks follows from its version.

    record(before, after) ──▶ steps        since(version) ──▶ Difference

Only names are kept; what they stand for now is in the newest snapshot. Whoever is further behind than the history
reaches, or comes from another router, tells its inventory instead (`toska_common.routing.delta`).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from toska_common.contracts.routing import Endpoint, Snapshot
from toska_common.routing.pools import changed_pools
from toska_common.routing.tables import NO_CHANGE, TableChange, compare

STEPS = 512
"""Snapshots that a gateway may be behind."""
MAX_NAMES = 100_000
"""Names that all steps together may have; the oldest go first."""


@dataclass(frozen=True, slots=True)
class EndpointsChange:
    """Keys of endpoints that may differ from those of version `base`; without a base it may be all of them."""

    base: str = ""
    keys: frozenset[str] = frozenset()


_ALL = EndpointsChange()


@dataclass(frozen=True, slots=True)
class Difference:
    """What may differ from an earlier snapshot: names of routes and clusters, and endpoints by cluster.

    Clusters that are gone may be among those whose endpoints differ.
    """

    table: TableChange
    endpoints: Mapping[str, EndpointsChange]


@dataclass(frozen=True, slots=True)
class _Step:
    base: str
    difference: Difference
    size: int


class History:
    """The last steps to the newest snapshot."""

    def __init__(self, steps: int = STEPS, names: int = MAX_NAMES) -> None:
        self._steps: deque[_Step] = deque()
        self._max_steps, self._max_names = steps, names
        self._names = 0

    def record(self, base: str, before: Snapshot, after: Snapshot) -> None:
        """Remember what changed from the snapshot of version `base` to the next."""
        table = compare(before.table, after.table)
        endpoints = _changed_endpoints(before, after)
        size = len(table) + sum(1 + len(change.keys) for change in endpoints.values())
        self._steps.append(_Step(base, Difference(table, endpoints), size))
        self._names += size
        while len(self._steps) > self._max_steps or self._names > self._max_names:
            self._names -= self._steps.popleft().size

    def since(self, version: str) -> Difference | None:
        """What may differ between that version and now; `None` if that is not known, or no longer."""
        table = NO_CHANGE
        endpoints: dict[str, EndpointsChange] = {}
        for step in reversed(self._steps):
            table |= step.difference.table
            for name, earlier in step.difference.endpoints.items():
                later = endpoints.get(name)
                endpoints[name] = earlier if later is None else _both(earlier, later)
            if step.base == version:
                return Difference(table, endpoints)
        return None


def _both(earlier: EndpointsChange, later: EndpointsChange) -> EndpointsChange:
    if not earlier.base or not later.base:
        return _ALL  # the cluster was not there all the time
    return EndpointsChange(earlier.base, earlier.keys | later.keys)


def _changed_endpoints(before: Snapshot, after: Snapshot) -> dict[str, EndpointsChange]:
    changed: dict[str, EndpointsChange] = {}
    for name in changed_pools(before, after):
        had, now = before.endpoints.get(name), after.endpoints[name]
        if had is None:
            changed[name] = _ALL
        elif had.version != now.version:
            changed[name] = EndpointsChange(had.version, _changed_keys(had.endpoints, now.endpoints))
    return changed


def _changed_keys(before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> frozenset[str]:
    old = {endpoint.key: endpoint for endpoint in before}
    new = {endpoint.key: endpoint for endpoint in after}
    return frozenset(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))

"""What all workers have counted, past and present: what each reports as new is added up, so no sum ever falls.

Clusters have sums of their own beside their endpoints', so endpoints may be forgotten: those that left, a while later,
and of a great number all beyond `MAX_ENDPOINTS`, which are counted together as `OTHER`.
"""

from collections.abc import Mapping, Set
from typing import Any, Final, cast

from toska_gateway.worker.stats import COUNTERS

Counts = dict[str, Any]
"""Of one route or endpoint, as `toska_gateway.worker.stats` reports them; numbers by name, or by name and label."""

OTHER: Final = "(other)"
MAX_ENDPOINTS: Final = 1000
"""Endpoints that have series of their own; each has about thirty."""
MAX_ROUTES: Final = 5000
FORGET_AFTER_S: Final = 600.0
"""How long an endpoint that left can still be looked up."""


class Totals:
    """Sums over all workers; times are monotonic seconds."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.routes: dict[str, Counts] = {}
        self.clusters: dict[str, Counts] = {}
        self.endpoints: dict[str, dict[str, Counts]] = {}
        self._individual = 0
        self._left: dict[tuple[str, str], float] = {}

    def add(self, report: Mapping[str, Any]) -> None:
        """Add what a worker has counted since its last report."""
        self.count(report["counters"])
        for name, counts in report["routes"].items():
            known = name in self.routes or len(self.routes) < MAX_ROUTES
            add_counts(self.routes.setdefault(name if known else OTHER, {}), counts)
        for cluster, endpoints in report["endpoints"].items():
            for key, counts in endpoints.items():
                add_counts(self.clusters.setdefault(cluster, {}), counts)
                add_counts(self._endpoint(cluster, key), counts)

    def count(self, counters: Mapping[str, int]) -> None:
        """Add to the counters that have no labels."""
        for name, count in counters.items():
            self.counters[name] += count

    def _endpoint(self, cluster: str, key: str) -> Counts:
        endpoints = self.endpoints.setdefault(cluster, {})
        found = endpoints.get(key)
        if found is None and self._individual >= MAX_ENDPOINTS:
            key = OTHER
            found = endpoints.get(key)
        if found is None:
            found = endpoints[key] = {}
            self._individual += key != OTHER
        return found

    def forget(self, present: Mapping[str, Set[str]], now: float) -> None:
        """Drop the endpoints that left a while ago; `present` has the keys of those that are there, by cluster."""
        for cluster, endpoints in self.endpoints.items():
            here = present.get(cluster, frozenset())
            for key in [key for key in endpoints if key != OTHER]:
                if key in here:
                    self._left.pop((cluster, key), None)
                elif self._left.setdefault((cluster, key), now) <= now - FORGET_AFTER_S:
                    del endpoints[key], self._left[cluster, key]
                    self._individual -= 1


def add_counts(total: Counts, more: Mapping[str, Any]) -> None:
    """Add counts to others, in place; of exemplars the newer one stays."""
    for name, value in more.items():
        if not isinstance(value, Mapping):
            total[name] = total.get(name, 0) + value
            continue
        members = cast("Mapping[Any, Any]", value)
        known: dict[str, Any] = total.setdefault(name, {})
        for label, count in members.items():
            # (JSON has made texts of the statuses and places, but not of those of a report that never travelled)
            known[str(label)] = count if name == "exemplars" else known.get(str(label), 0) + count

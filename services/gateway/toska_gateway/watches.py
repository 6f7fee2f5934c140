"""What was counted on routes under watch, for the router: sums by token, over all workers and since each token came.

A token is a step of a rollout, or an experiment; routes carry it (`policies.watch`). One that no route carries any more
is told of for a while yet, since requests that began under it may still be on their way, and is then forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from toska_common.contracts.routing import RouteTable
from toska_common.contracts.tallies import (
    MAX_CELLS,
    MAX_REASONS,
    MAX_TALLIES,
    CellCounts,
    Tally,
    TallyReport,
    WholeCounts,
)
from toska_common.routing.picking import PickedRoutes

from toska_gateway.system_routes import MESH_ROUTE_PREFIX
from toska_gateway.totals import OTHER, Counts, add_counts

FORGET_AFTER_S: Final = 60.0


@dataclass(slots=True)
class _Watched:
    """Attributes:
    left_at: When the last route let go of the token; `None` while one carries it.
    """

    left_at: float | None
    cells: dict[str, Counts] = field(default_factory=dict[str, Counts])
    requests: int = 0
    failed: int = 0
    aborted: int = 0


class Watches:
    """Sums by token; times are monotonic seconds.

    Args:
        epoch: Names this gateway since its start, as its counts begin with it.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._sequence = 0
        self._known: dict[str, _Watched] = {}
        self._carrying = PickedRoutes(lambda route: route.policies.watch is not None)

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to count."""
        return bool(self._known)

    def use(self, table: RouteTable, now: float) -> None:
        """Watch what the routes of a table say, from now on."""
        tokens = {
            route.policies.watch for route in self._carrying.of(table).values() if route.policies.watch is not None
        }
        for token in tokens:
            self._get(token).left_at = None
        for token, watched in self._known.items():
            if token not in tokens and watched.left_at is None:
                watched.left_at = now
        self._forget(now)

    def add(self, report: Mapping[str, Any]) -> None:
        """Add what a worker has counted since its last report."""
        for token, cluster, counts in report.get("watched", ()):
            cells = self._get(token).cells
            if cluster in cells or len(cells) < MAX_CELLS:
                add_counts(cells.setdefault(cluster, {}), counts)
        if self._known:
            self._add_whole(report)

    def report(self, now: float) -> TallyReport | None:
        """Everything counted until now; `None` if nothing is watched."""
        self._forget(now)
        if not self._known:
            return None
        self._sequence += 1
        # Of more than a report takes, those in force go first, and then those that were left last.
        in_order = sorted(self._known.items(), key=lambda item: _left_at(item[1]), reverse=True)
        tallies = tuple(_tally(token, watched) for token, watched in in_order[:MAX_TALLIES])
        return TallyReport(epoch=self._epoch, sequence=self._sequence, tallies=tallies)

    def _add_whole(self, report: Mapping[str, Any]) -> None:
        requests = failed = 0
        for name, counts in report["routes"].items():
            if not name.startswith(MESH_ROUTE_PREFIX):
                statuses: Mapping[Any, int] = counts.get("statuses", {})
                requests += sum(statuses.values())
                failed += sum(count for status, count in statuses.items() if int(status) >= 500)
        aborted = report["counters"].get("faults", 0)
        for watched in self._known.values():
            if watched.left_at is None:
                watched.requests += requests
                watched.failed += failed
                watched.aborted += aborted

    def _get(self, token: str) -> _Watched:
        # (a worker may have begun to count a moment before the table is in force here)
        return self._known.setdefault(token, _Watched(None))

    def _forget(self, now: float) -> None:
        gone = [
            token
            for token, watched in self._known.items()
            if watched.left_at is not None and watched.left_at <= now - FORGET_AFTER_S
        ]
        for token in gone:
            del self._known[token]


def _left_at(watched: _Watched) -> float:
    return inf if watched.left_at is None else watched.left_at


def _tally(token: str, watched: _Watched) -> Tally:
    cells = {cluster: _cell(counts) for cluster, counts in watched.cells.items()}
    whole = WholeCounts(requests=watched.requests, failed=watched.failed, aborted=watched.aborted)
    return Tally(token=token, cells=cells, whole=whole)


def _cell(counts: Counts) -> CellCounts:
    reasons: dict[str, int] = counts.get("reasons", {})
    most = dict(sorted(reasons.items(), key=lambda item: -item[1])[: MAX_REASONS - 1])
    if others := sum(reasons.values()) - sum(most.values()):
        most[OTHER] = others
    return CellCounts(
        requests=counts.get("requests", 0),
        failed=sum(reasons.values()),
        gone=counts.get("gone", 0),
        reasons=most,
        buckets={int(place): count for place, count in counts.get("buckets", {}).items()},
    )

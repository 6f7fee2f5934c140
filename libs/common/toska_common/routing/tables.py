"""What differs between two tables, and a table as a change of another.

    compare(before, after) ──▶ TableChange ── build_table_delta ──▶ TableDelta ── apply_table_delta(before) ──▶ after

A change has names only, so those of several steps add up to the change over all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from toska_common.contracts import Document
from toska_common.contracts.routing import Cluster, Inventory, PlacedRoute, Route, RouteTable, Server, TableDelta
from toska_common.errors import MeshError
from toska_common.routing.placing import FIRST, arrange, find_moved, places
from toska_common.routing.versions import resource_version

T = TypeVar("T")
NOBODY: frozenset[str] = frozenset()


class DeltaMismatch(MeshError):
    """A delta does not fit what it was applied to, or its result is not what its version says."""

    status, code, title = 500, "delta-mismatch", "Delta does not fit"


@dataclass(frozen=True, slots=True)
class TableChange:
    """Names of what is new, has changed, has moved or is gone."""

    server: bool = False
    clusters: frozenset[str] = NOBODY
    routes: frozenset[str] = NOBODY

    def __bool__(self) -> bool:
        return self.server or bool(self.clusters) or bool(self.routes)

    def __or__(self, other: "TableChange") -> "TableChange":
        return TableChange(self.server or other.server, self.clusters | other.clusters, self.routes | other.routes)

    def __len__(self) -> int:
        return len(self.clusters) + len(self.routes)


NO_CHANGE = TableChange()


def compare(before: RouteTable, after: RouteTable) -> TableChange:
    """What has changed; what both have as the same object costs next to nothing."""
    if before is after:
        return NO_CHANGE
    return TableChange(
        server=before.server != after.server,
        clusters=_changed(before.clusters, after.clusters),
        routes=_changed_routes(_by_name(before.routes), _by_name(after.routes)),
    )


def compare_versions(
    has: Inventory, table: RouteTable, version_of: Callable[[Document], str] = resource_version
) -> TableChange:
    """What has changed since a gateway got what it says to have."""
    return TableChange(
        server=has.server != version_of(table.server),
        clusters=_changed(has.clusters, {name: version_of(item) for name, item in table.clusters.items()}),
        routes=_changed_routes(has.routes, {route.name: version_of(route) for route in table.routes}),
    )


def build_table_delta(change: TableChange, after: RouteTable, version: str) -> TableDelta:
    """What turns a table from which `change` leads to `after` into `after`."""
    clusters, routes = after.clusters, _by_name(after.routes)
    return TableDelta.model_construct(
        version=version,
        server=after.server if change.server else None,
        clusters={name: clusters[name] for name in sorted(change.clusters) if name in clusters},
        removed_clusters=tuple(sorted(change.clusters - clusters.keys())),
        routes=_placed(change.routes, routes),
        removed_routes=tuple(sorted(change.routes - routes.keys())),
    )


def whole_table_delta(table: RouteTable, version: str) -> TableDelta:
    """What makes the table of nothing."""
    return TableDelta.model_construct(
        version=version,
        server=table.server,
        clusters=table.clusters,
        routes=tuple(PlacedRoute.model_construct(route=route, after=None) for route in table.routes),
    )


def apply_table_delta(before: RouteTable | None, delta: TableDelta) -> RouteTable:
    """Put a delta on top of a table, or of nothing; the version of the result is the caller's to verify.

    Raises:
        DeltaMismatch: It was made for another table.
    """
    had: Mapping[str, Cluster] = {} if before is None else before.clusters
    gone = frozenset(delta.removed_clusters)
    clusters = {name: cluster for name, cluster in had.items() if name not in gone} | dict(delta.clusters)
    if clusters.keys() != had.keys():
        clusters = dict(sorted(clusters.items()))
    server = delta.server or (Server() if before is None else before.server)
    routes = _apply_routes(() if before is None else before.routes, delta)
    return RouteTable.model_construct(server=server, clusters=clusters, routes=routes)


def _apply_routes(before: Sequence[Route], delta: TableDelta) -> tuple[Route, ...]:
    by_name = _by_name(before)
    placed: dict[str, Route] = {}
    follows: dict[str, str] = {}
    last = FIRST
    for item in delta.routes:
        name = item.route.name
        after = last if item.after is None else item.after
        if name in placed or after in follows:
            raise DeltaMismatch(f"the route {name} has two places, or shares one")
        placed[name], follows[after], last = item.route, name, name
    gone = {*delta.removed_routes, *placed}
    kept = [name for name in by_name if name not in gone]
    by_name |= placed
    routes = tuple(by_name[name] for name in arrange(kept, follows))
    if len(routes) != len(kept) + len(placed):
        raise DeltaMismatch("a route stands after one that there is not")
    return routes


def _placed(names: frozenset[str], routes: Mapping[str, Route]) -> tuple[PlacedRoute, ...]:
    found: list[PlacedRoute] = []
    last = FIRST
    for name, after in places(names, tuple(routes)):
        found.append(PlacedRoute.model_construct(route=routes[name], after=None if after == last else after))
        last = name
    return tuple(found)


def _changed(before: Mapping[str, T], after: Mapping[str, T]) -> frozenset[str]:
    """Names with another value, or only on one side."""
    if before is after:
        return NOBODY
    differs = {name for name, item in after.items() if (had := before.get(name)) is not item and had != item}
    return frozenset(differs | (before.keys() - after.keys()))


def _changed_routes(before: Mapping[str, T], after: Mapping[str, T]) -> frozenset[str]:
    """The same, and those that stand elsewhere among the rest."""
    changed = _changed(before, after)
    stayed = [name for name in before if name not in changed]
    return changed | find_moved(stayed, [name for name in after if name not in changed])


def _by_name(routes: Sequence[Route]) -> dict[str, Route]:
    return {route.name: route for route in routes}

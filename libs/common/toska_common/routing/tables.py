"""What differs between two tables, and a table as a change of another.

    compare(before, after) ──▶ TableChange ── build_table_delta ──▶ TableDelta ── apply_table_delta(before) ──▶ after

A change has names only, so those of several steps add up to the change over all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from toska_common.contracts.routing import Cluster, Inventory, PlacedRoute, Route, RouteTable, Server, TableDelta
from toska_common.errors import MeshError
from toska_common.routing.editing import NO_CHANGE, NOBODY, TABLES, TableChange, TableEdit
from toska_common.routing.placing import FIRST, arrange, find_moved
from toska_common.routing.table_index import index_of
from toska_common.routing.versions import resource_version

__all__ = [
    "NO_CHANGE", "DeltaMismatch", "TableChange", "apply_table_delta", "build_table_delta", "compare",
    "compare_versions", "whole_table_delta",
]  # fmt: skip

T = TypeVar("T")
FEW: Final = 32
"""So many changes of routes and clusters are made one by one; more, by putting the whole table together anew."""


class DeltaMismatch(MeshError):
    """A delta does not fit what it was applied to, or its result is not what its version says."""

    status, code, title = 500, "delta-mismatch", "Delta does not fit"


def compare(before: RouteTable, after: RouteTable) -> TableChange:
    """What has changed; nothing is looked at if one was made of the other by a change that is remembered."""
    if before is after:
        return NO_CHANGE
    known = TABLES.find(before, after)
    if known is not None:
        return known
    change = TableChange(
        server=before.server != after.server,
        clusters=_changed(before.clusters, after.clusters),
        routes=_changed_routes(_by_name(before.routes), _by_name(after.routes)),
    )
    return TABLES.record(before, after, change)


def compare_versions(has: Inventory, table: RouteTable) -> TableChange:
    """What has changed since a gateway got what it says to have."""
    return TableChange(
        server=has.server != resource_version(table.server),
        clusters=_changed(has.clusters, {name: resource_version(item) for name, item in table.clusters.items()}),
        routes=_changed_routes(has.routes, {route.name: resource_version(route) for route in table.routes}),
    )


def build_table_delta(change: TableChange, after: RouteTable, version: str) -> TableDelta:
    """What turns a table from which `change` leads to `after` into `after`."""
    clusters, routes = after.clusters, index_of(after).by_name
    return TableDelta.model_construct(
        version=version,
        server=after.server if change.server else None,
        clusters={name: clusters[name] for name in sorted(change.clusters) if name in clusters},
        removed_clusters=tuple(sorted(change.clusters - clusters.keys())),
        routes=_placed(change.routes, after),
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
    few = len(delta.routes) + len(delta.removed_routes) + len(delta.clusters) + len(delta.removed_clusters) <= FEW
    if before is not None and delta.server is None and few:
        return _apply_few(before, delta)
    had: Mapping[str, Cluster] = {} if before is None else before.clusters
    gone = frozenset(delta.removed_clusters)
    clusters = {name: cluster for name, cluster in had.items() if name not in gone} | dict(delta.clusters)
    if clusters.keys() != had.keys():
        clusters = dict(sorted(clusters.items()))
    server = delta.server or (Server() if before is None else before.server)
    routes = _apply_routes(() if before is None else before.routes, delta)
    return RouteTable.model_construct(server=server, clusters=clusters, routes=routes)


def _apply_few(before: RouteTable, delta: TableDelta) -> RouteTable:
    """The same for a few changes, each made by itself."""
    edit = TableEdit(before)
    for name in delta.removed_clusters:
        edit.remove_cluster(name)
    for name, cluster in delta.clusters.items():
        edit.put_cluster(name, cluster)
    for name in (*delta.removed_routes, *(item.route.name for item in delta.routes)):
        edit.remove_route(name)
    last, shared = FIRST, set[str]()
    for item in delta.routes:
        after = last if item.after is None else item.after
        if after in shared:
            raise DeltaMismatch(f"the route {item.route.name} shares its place")
        shared.add(after)
        try:
            edit.insert_route(item.route, after)
        except ValueError as error:
            raise DeltaMismatch(
                f"the route {item.route.name} has two places, or stands after one that there is not"
            ) from error
        last = item.route.name
    return edit.finish()


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


def _placed(names: frozenset[str], table: RouteTable) -> tuple[PlacedRoute, ...]:
    found: list[PlacedRoute] = []
    last, index = FIRST, index_of(table)
    for name, after in index.places(names):
        found.append(PlacedRoute.model_construct(route=index.by_name[name], after=None if after == last else after))
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

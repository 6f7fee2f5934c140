"""A table made of another by a few changes, in time that depends on those and hardly on the table.

All that is known of the table before is carried over: its index, its digest, and that nothing else is different.
"""

from dataclasses import dataclass, field
from typing import Final

from toska_common.contracts.routing import Cluster, Route, RouteTable
from toska_common.routing.memory import Lineage
from toska_common.routing.neighbours import carry_neighbours
from toska_common.routing.placing import FIRST
from toska_common.routing.table_index import TableIndex, index_of, remember_index
from toska_common.routing.versions import (
    TableDigest,
    cluster_weight,
    remember_digest,
    resource_version,
    route_weight,
    table_digest,
)

NOBODY: frozenset[str] = frozenset()


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
TABLES: Final = Lineage[RouteTable, TableChange]()
"""How tables came of one another."""


@dataclass(slots=True)
class _Changed:
    clusters: set[str] = field(default_factory=set[str])
    routes: set[str] = field(default_factory=set[str])


class TableEdit:
    """Changes of one table, until `finish` makes the next of it; the one before is not touched."""

    def __init__(self, before: RouteTable) -> None:
        index, digest = index_of(before), table_digest(before)
        self._before = before
        self._names = list(index.names)
        self._routes = list(before.routes)
        self._by_name = dict(index.by_name)
        self._clusters: dict[str, Cluster] | None = None  # copied by the first change of one
        self._sums = [digest.clusters, digest.routes]
        self._server = digest.server
        self._changed = _Changed()

    def put_cluster(self, name: str, cluster: Cluster) -> None:
        """Make a cluster what it is to be."""
        if self._before.clusters.get(name) is cluster and name not in self._changed.clusters:
            return
        self.remove_cluster(name)
        self._own_clusters()[name] = cluster
        self._sums[0] += cluster_weight(name, resource_version(cluster))
        self._changed.clusters.add(name)

    def remove_cluster(self, name: str) -> None:
        """Take a cluster away, if there is one of this name."""
        known = self._own_clusters().pop(name, None)
        if known is not None:
            self._sums[0] -= cluster_weight(name, resource_version(known))
            self._changed.clusters.add(name)

    def remove_route(self, name: str) -> None:
        """Take a route away, if there is one of this name."""
        if name not in self._by_name:
            return
        place = self._names.index(name)
        before, after = self._at(place - 1), self._at(place + 1)
        self._tell(before, name, -1)
        self._tell(name, after, -1)
        del self._names[place], self._routes[place], self._by_name[name]
        self._tell(before, after, 1)
        self._changed.routes.add(name)

    def insert_route(self, route: Route, after: str) -> None:
        """Put a route directly after the one of this name, or `FIRST`.

        Raises:
            ValueError: There is a route of its name, or none of that name.
        """
        self.insert_route_at(route, 0 if after == FIRST else self._names.index(after) + 1)

    def insert_route_at(self, route: Route, place: int) -> None:
        """The same, with so many routes before it."""
        name = route.name
        if name in self._by_name:
            raise ValueError(f"there is a route {name}")
        before, after = self._at(place - 1), self._at(place)
        self._tell(before, after, -1)
        self._names.insert(place, name)
        self._routes.insert(place, route)
        self._by_name[name] = route
        self._tell(before, name, 1)
        self._tell(name, after, 1)
        self._changed.routes.add(name)

    def finish(self) -> RouteTable:
        """The table as it is now."""
        before, changed = self._before, self._changed
        clusters = before.clusters
        if changed.clusters:
            clusters = self._own_clusters()
            if clusters.keys() != before.clusters.keys():
                clusters = dict(sorted(clusters.items()))
        routes = tuple(self._routes) if changed.routes else before.routes
        table = RouteTable.model_construct(server=before.server, clusters=clusters, routes=routes)
        remember_index(table, TableIndex(self._names, self._by_name))
        remember_digest(table, TableDigest(self._server, *self._sums))
        gone, come = index_of(before).by_name, self._by_name
        carry_neighbours(
            before,
            table,
            [gone[name] for name in changed.routes if name in gone],
            [come[name] for name in changed.routes if name in come],
        )
        TABLES.record(before, table, TableChange(False, frozenset(changed.clusters), frozenset(changed.routes)))
        return table

    def _own_clusters(self) -> dict[str, Cluster]:
        if self._clusters is None:
            self._clusters = dict(self._before.clusters)
        return self._clusters

    def _at(self, place: int) -> str:
        """The name there; `FIRST` beyond either end."""
        return self._names[place] if 0 <= place < len(self._names) else FIRST

    def _tell(self, before: str, name: str, sign: int) -> None:
        """Count that one route stands after another, or not any more."""
        if name != FIRST:
            self._sums[1] += sign * route_weight(before, name, resource_version(self._by_name[name]))

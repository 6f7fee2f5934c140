"""The few routes or clusters of a table that somebody cares about: found by looking at what has changed since the last.

Asking 10,000 routes whether they have a filter takes milliseconds, which is longer than a change of one should take.
"""

from collections.abc import Callable, Mapping

from toska_common.contracts.routing import Cluster, Route, RouteTable
from toska_common.routing.table_index import index_of
from toska_common.routing.tables import FEW, compare


class PickedRoutes:
    """The routes of one table after another that fulfil a condition, which depends on the route alone."""

    def __init__(self, condition: Callable[[Route], bool]) -> None:
        self._condition = condition
        self._table = RouteTable()
        self._found: dict[str, Route] = {}

    def of(self, table: RouteTable) -> Mapping[str, Route]:
        """Those of a table, by name, in no order."""
        changed = compare(self._table, table).routes
        if len(changed) > FEW:
            self._found = {route.name: route for route in table.routes if self._condition(route)}
        elif changed:
            by_name, found = index_of(table).by_name, dict(self._found)
            for name in changed:
                found.pop(name, None)
                if name in by_name and self._condition(by_name[name]):
                    found[name] = by_name[name]
            self._found = found
        self._table = table
        return self._found


class PickedClusters:
    """The same, of clusters and their names."""

    def __init__(self, condition: Callable[[str, Cluster], bool]) -> None:
        self._condition = condition
        self._table = RouteTable()
        self._found: dict[str, Cluster] = {}

    def of(self, table: RouteTable) -> Mapping[str, Cluster]:
        """Those of a table, by name, in no order."""
        changed = compare(self._table, table).clusters
        if len(changed) > FEW:
            self._found = {name: one for name, one in table.clusters.items() if self._condition(name, one)}
        elif changed:
            found = dict(self._found)
            for name in changed:
                found.pop(name, None)
                if name in table.clusters and self._condition(name, table.clusters[name]):
                    found[name] = table.clusters[name]
            self._found = found
        self._table = table
        return self._found

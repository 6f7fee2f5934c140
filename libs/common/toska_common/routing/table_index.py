"""Where the routes of a table are: by name, and in their order. Made once, or of the table before with each change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from toska_common.contracts.routing import Route, RouteTable
from toska_common.routing.memory import Memo
from toska_common.routing.placing import FIRST, places

_KNOWN: Final = Memo[RouteTable, "TableIndex"]()
_FEW: Final = 32
"""So many routes are found quicker one by one than by going through all."""


@dataclass(frozen=True, slots=True)
class TableIndex:
    """Attributes:
    names: Of the routes, in their order.
    by_name: The routes, in any order.
    """

    names: Sequence[str]
    by_name: Mapping[str, Route]

    def places(self, names: frozenset[str]) -> list[tuple[str, str]]:
        """Those of `names` that there are, in the routes' order, each with the name before it or `FIRST`."""
        if len(names) > _FEW:
            return list(places(names, self.names))
        found = sorted(self.names.index(name) for name in names if name in self.by_name)
        return [(self.names[place], self.names[place - 1] if place else FIRST) for place in found]


def index_of(table: RouteTable) -> TableIndex:
    """Where the routes of a table are."""
    known = _KNOWN.get(table)
    if known is None:
        by_name = {route.name: route for route in table.routes}
        known = _KNOWN.put(table, TableIndex(tuple(by_name), by_name))
    return known


def remember_index(table: RouteTable, index: TableIndex) -> None:
    """Tell where the routes of a table are."""
    _KNOWN.put(table, index)

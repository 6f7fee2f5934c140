"""A table made of the one in force by a few changes, in time that depends on those and hardly on the table.

What is touched is copied: the places where routes come and go, and the ways there. All else is shared by both tables,
and the one in force stays as it is.
"""

from collections.abc import Collection, Mapping
from typing import Final

from toska_gateway.worker.route import Route
from toska_gateway.worker.table import RoutingTable

RANK_STEP: Final = 1 << 20
"""Between two routes of a table that is made anew."""
_FIRST: Final = ""
_FEW: Final = 32
"""Routes that come or go; for more it is quicker to put the whole table together."""
MOST: Final = 400
"""Routes that stand where those do: so many are put in order again in well under a millisecond."""


class TooCrowded(Exception):
    """Two routes have ranks between which there is no room for those that come there."""


def patch(
    before: RoutingTable, leaving: Collection[str], new: Mapping[str, Route], follows: Mapping[str, str]
) -> RoutingTable | None:
    """The table after a few changes; `None` if they touch too much for being made one by one.

    Args:
        before: The table in force.
        leaving: Names of those that are gone, or come anew.
        new: Those that come, by name.
        follows: By name, who stands directly after it; of those that come.

    Raises:
        TooCrowded: Two routes have no room between them.
        KeyError: A route came without a place, or has one and did not come.
    """
    if len(leaving) + len(new) > _FEW:
        return None
    gone = [route for name in leaving if (route := before.by_name.get(name)) is not None]
    come = list(new.values())
    if before.crowd([*gone, *come]) > MOST:
        return None
    routes = list(before.routes)
    for route in gone:
        del routes[_index(routes, route.rank)]
    placed = 0
    for anchor in follows:
        if anchor not in new:
            place = 0 if anchor == _FIRST else _index_of_staying(before, routes, anchor, leaving) + 1
            run = _run(anchor, new, follows)
            _rank(run, routes, place)
            routes[place:place] = run
            placed += len(run)
    if placed != len(new):
        raise KeyError("a route has no place")
    return before.changed(gone, come, routes)


def _index_of_staying(before: RoutingTable, routes: list[Route], name: str, leaving: Collection[str]) -> int:
    if name in leaving:
        raise KeyError("a route stands after one that is gone")
    return _index(routes, before.by_name[name].rank)


def _index(routes: list[Route], rank: int) -> int:
    """Where the route of this rank stands."""
    low, high = 0, len(routes)
    while low < high:
        middle = (low + high) // 2
        if routes[middle].rank < rank:
            low = middle + 1
        else:
            high = middle
    return low


def _run(anchor: str, new: Mapping[str, Route], follows: Mapping[str, str]) -> list[Route]:
    """Those that come one after the other, directly after one that stays."""
    found: list[Route] = []
    while anchor in follows:
        anchor = follows[anchor]
        found.append(new[anchor])
    return found


def _rank(run: list[Route], routes: list[Route], place: int) -> None:
    """Give routes ranks that fit in before those from `place` on."""
    low = routes[place - 1].rank if place else 0
    last = place == len(routes)
    step = RANK_STEP if last else (routes[place].rank - low) // (len(run) + 1)
    if step < 1:
        raise TooCrowded
    for number, route in enumerate(run, 1):
        route.rank = low + number * step

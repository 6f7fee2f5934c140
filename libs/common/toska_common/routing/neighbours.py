"""Which routes stand at the same place, by host and path: only those can match the same requests.

Kept for a table or a document as a whole, and carried over to the next with each change.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from toska_common.contracts.routing import Match, Route, RouteTable, RoutingDocument
from toska_common.path_templates import PathTemplate
from toska_common.routing.memory import Memo

Place = tuple[str | None, ...]
Owner = RouteTable | RoutingDocument
Neighbours = Mapping[Place, tuple[Route, ...]]
_KNOWN: Final = Memo[Owner, Neighbours]()


def place_of(match: Match) -> Place:
    """Where a route stands; comparing whole matches costs 30 times as much, and most have a place of their own."""
    template = match.path_template and PathTemplate(match.path_template).anonymous
    return match.host, match.path, match.path_regex, template, match.path_prefix and match.path_prefix.rstrip("/")


def neighbours_of(owner: Owner) -> Neighbours:
    """The routes at each place."""
    known = _KNOWN.get(owner)
    return _KNOWN.put(owner, _changed({}, (), owner.routes)) if known is None else known


def carry_neighbours(before: Owner, after: Owner, gone: Iterable[Route], come: Iterable[Route]) -> None:
    """Tell that `after` has the routes of `before`, but for some that are gone and some that have come."""
    known = _KNOWN.get(before)
    if known is not None:
        _KNOWN.put(after, _changed(known, gone, come))


def _changed(known: Neighbours, gone: Iterable[Route], come: Iterable[Route]) -> Neighbours:
    found = dict(known)
    for route in gone:
        place = place_of(route.match)
        left = tuple(one for one in found[place] if one is not route)
        if left:
            found[place] = left
        else:
            del found[place]
    for route in come:
        place = place_of(route.match)
        found[place] = (*found.get(place, ()), route)
    return found

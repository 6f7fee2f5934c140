"""Compiles sources into the table that gateways are given; a few changes of the API's resources, on top of the last.

    sources + automatic routes + offers ──whole──▶ Compiled ──few changes──▶ Compiled ──▶ …

Each `Compiled` stands by itself, so what a change would come to can be tried without making it.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toska_common.contracts.routing import Cluster, Policies, Route, RouteTable
from toska_common.routing.editing import TableEdit
from toska_common.routing.merging import merge_known
from toska_common.routing.order import AUTOMATIC_PREFIX, precedence
from toska_common.routing.snapshot import automatic_cluster, build_table
from toska_common.routing.tables import FEW

from toska_router.documents import Change, known_changes, routes_of
from toska_router.sources import Sources

_OF_FILE, _OF_API, _OFFERED, _AUTOMATIC = range(4)

Key = tuple[Any, ...]
"""Where a route stands: its precedence, then the order of writing: a number for the source, and a place there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a table is made of: sources, services with an automatic route, and the routes that services asked for."""

    sources: Sources
    exposed: frozenset[str] = frozenset()
    offered: Mapping[str, Sequence[Route]] | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A table, what it was made of, and the keys of its routes, in their order."""

    wanted: Wanted
    table: RouteTable
    keys: Sequence[Key]


def compile_table(wanted: Wanted, before: Compiled | None = None) -> Compiled:
    """The table of these inputs; quick if they are those of `before` but for a few changes."""
    if before is not None:
        changes = _few_changes(before.wanted, wanted)
        if changes is not None:
            return _change(before, wanted, changes)
    offered = wanted.offered or {}
    table = build_table(wanted.sources.document(), wanted.exposed, offered=offered)
    written = _written(wanted, offered)
    return Compiled(wanted, table, [(*precedence(route), *written[route.name]) for route in table.routes])


def _few_changes(before: Wanted, after: Wanted) -> Sequence[Change] | None:
    if after.exposed != before.exposed or not _are_same(after.offered or {}, before.offered or {}):
        return None
    if after.sources.file is not before.sources.file:
        return None
    changes = known_changes(before.sources.own, after.sources.own)
    if changes is None or len(changes) > FEW or any(change.kind == "policy" for change in changes):
        return None  # a policy changes any number of routes
    return changes


def _are_same(after: Mapping[str, Sequence[Route]], before: Mapping[str, Sequence[Route]]) -> bool:
    """Whether the routes that services asked for are the same objects."""
    return after is before or (
        after.keys() == before.keys()
        and all(list(map(id, after[name])) == list(map(id, before[name])) for name in after)
    )


def _change(before: Compiled, wanted: Wanted, changes: Sequence[Change]) -> Compiled:
    edit, keys = TableEdit(before.table), list(before.keys)
    routes = [change for change in changes if change.kind == "route"]
    for change in changes:
        if change.kind == "cluster":
            _change_cluster(edit, wanted, change)
    for change in routes:
        had = routes_of(before.wanted.sources.own).get(change.name)
        if had is not None:
            del keys[bisect_left(keys, _key(had))]
            edit.remove_route(change.name)
    policies = wanted.sources.policies()
    for change in routes:
        if isinstance(change.resource, Route):
            _put_route(edit, keys, change.resource, policies)
    return Compiled(wanted, edit.finish(), keys)


def _put_route(edit: TableEdit, keys: list[Key], route: Route, policies: Mapping[str, Policies]) -> None:
    place = bisect_left(keys, _key(route))
    keys.insert(place, _key(route))
    edit.insert_route_at(merge_known(route, policies), place)


def _change_cluster(edit: TableEdit, wanted: Wanted, change: Change) -> None:
    if isinstance(change.resource, Cluster):
        edit.put_cluster(change.name, change.resource)
    elif change.name in wanted.exposed or change.name in (wanted.offered or {}):
        edit.put_cluster(change.name, automatic_cluster(change.name))
    else:
        edit.remove_cluster(change.name)


def _key(route: Route) -> Key:
    """The key of a route of the API's."""
    return (*precedence(route), _OF_API, route.name)


def _written(wanted: Wanted, offered: Mapping[str, Sequence[Route]]) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for place, route in enumerate(wanted.sources.file.routes):
        found[route.name] = _OF_FILE, place
    for route in wanted.sources.own.routes:
        found[route.name] = _OF_API, route.name
    asked_for = [route for _, routes in sorted(offered.items()) for route in routes]
    for place, route in enumerate(asked_for):
        found[route.name] = _OFFERED, place
    for service in wanted.exposed:
        found[f"{AUTOMATIC_PREFIX}{service}"] = _AUTOMATIC, service
    return found

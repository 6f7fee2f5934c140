"""How two pieces of JSON differ, and what that means for a table: what a change would come to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from toska_common.contracts import Document
from toska_common.contracts.revisions import CompiledDifference, Difference, ItemDifference
from toska_common.contracts.routing import RouteTable
from toska_common.routing.problems import Location, format_location
from toska_common.routing.versions import table_version
from toska_common.routing.written import written


def find_differences(before: Any, after: Any) -> tuple[Difference, ...]:
    """Every value that is different, with its place; of lists, element by element."""
    return tuple(_differences((), before, after))


def diff_tables(before: RouteTable, after: RouteTable) -> CompiledDifference:
    """What gateways would see of a change: routes in their ranks with policies merged, and clusters."""
    ranks = {route.name: rank for rank, route in enumerate(after.routes)}
    return CompiledDifference(
        routes_version_before=table_version(before),
        routes_version=table_version(after),
        routes=tuple(
            _items({route.name: route for route in before.routes}, {route.name: route for route in after.routes}, ranks)
        ),
        clusters=tuple(_items(before.clusters, after.clusters, {})),
    )


def diff_resources(before: Document | None, after: Document | None) -> tuple[Difference, ...]:
    """How a resource differs from another version of itself, as written; `None` is not there."""
    return find_differences(
        None if before is None else written(before),
        None if after is None else written(after),
    )


def _items(
    before: Mapping[str, Document], after: Mapping[str, Document], ranks: Mapping[str, int]
) -> Iterator[ItemDifference]:
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        # What is the same object is the same; comparing 10,000 routes field by field would take longer than a change.
        if old is not new and old != new:
            change = "added" if old is None else "removed" if new is None else "changed"
            yield ItemDifference(name=name, change=change, rank=ranks.get(name), differences=diff_resources(old, new))


def _differences(at: Location, before: Any, after: Any) -> Iterator[Difference]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        old, new = cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", after)
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new:
                yield Difference(path=format_location((*at, key)), change="removed", before=old[key])
            elif key not in old:
                yield Difference(path=format_location((*at, key)), change="added", after=new[key])
            else:
                yield from _differences((*at, key), old[key], new[key])
    elif isinstance(before, list) and isinstance(after, list):
        yield from _element_differences(at, cast("Sequence[Any]", before), cast("Sequence[Any]", after))
    else:
        change = "added" if before is None else "removed" if after is None else "changed"
        yield Difference(path=format_location(at), change=change, before=before, after=after)


def _element_differences(at: Location, before: Sequence[Any], after: Sequence[Any]) -> Iterator[Difference]:
    for index in range(max(len(before), len(after))):
        place = (*at, index)
        if index >= len(after):
            yield Difference(path=format_location(place), change="removed", before=before[index])
        elif index >= len(before):
            yield Difference(path=format_location(place), change="added", after=after[index])
        else:
            yield from _differences(place, before[index], after[index])

"""The order of routes as a change of the order before: what stays keeps its place, the rest says after whom it stands.

Free of every import, since the gateway's workers put their tables together with it too.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

FIRST = ""
"""In the place of a name: whoever stands after it is the first of all."""


def find_moved(before: Sequence[str], after: Sequence[str]) -> frozenset[str]:
    """A smallest set of names without which two orders of the same names are the same."""
    if before == after:
        return frozenset()
    rank = {name: index for index, name in enumerate(before)}
    ranks = [rank[name] for name in after]
    # Those that stay are a longest increasing run (patience sorting): `tails` ends the best run of each length.
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for index, value in enumerate(ranks):
        length = bisect_left(tails, value)
        previous.append(ends[length - 1] if length else -1)
        if length == len(tails):
            tails.append(value)
            ends.append(index)
        else:
            tails[length], ends[length] = value, index
    staying: set[str] = set()
    index = ends[-1] if ends else -1
    while index >= 0:
        staying.add(after[index])
        index = previous[index]
    return frozenset(name for name in after if name not in staying)


def places(names: Iterable[str], order: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each of `names` that is in `order`, in that order, with the name directly before it or `FIRST`."""
    wanted = frozenset(names)
    before = FIRST
    for name in order:
        if name in wanted:
            yield name, before
        before = name


def arrange(kept: Iterable[str], follows: Mapping[str, str]) -> Iterator[str]:
    """The order in which those that are kept stay as they are, and each of the others stands directly after one.

    Args:
        kept: In their order.
        follows: By name (or `FIRST`), who stands directly after it; nobody stands after two, and nobody is kept too.
            Who stands after a name that does not come up is left out, so what comes out is to be counted.
    """
    for name in _chain(FIRST, kept):
        if name != FIRST:
            yield name
        while (name := follows.get(name, FIRST)) != FIRST:
            yield name


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest

"""A table put together from the one in force: routes that are as they were keep object and rank, the rest fits between.

Ranks leave room: a route that comes between two others gets one between theirs, so those need not be touched, which
serve requests meanwhile. When there is no room left between two, the table has to be made anew.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from toska_gateway.worker.patching import RANK_STEP, TooCrowded, patch
from toska_gateway.worker.route import Route
from toska_gateway.worker.table import RoutingTable

_FIRST: Final = ""


class Rebuilding:
    """One table on its way; `table` is it.

    Args:
        before: The table in force; an empty one if all is made anew.
        removed: Names of those that are gone.
    """

    def __init__(self, before: RoutingTable, removed: Sequence[str]) -> None:
        self._before = before
        self._leaving = set(removed)
        self._new: dict[str, Route] = {}
        self._follows: dict[str, str] = {}
        self._last = _FIRST
        self._walk: Iterator[Route] | None = None
        self._run: list[Route] = []  # new ones, until the next that stays tells how much room they have
        self._ready: deque[Route] = deque()
        self._rank = 0
        self._kept = 0
        self._patched = False
        self.table = RoutingTable()

    def put(self, route: Route) -> None:
        """Take a route that is new, or stands for one of its name."""
        self._new[route.name] = route
        self._leaving.add(route.name)

    def place(self, places: Sequence[tuple[str, str | None]]) -> None:
        """Take where those stand: each with the name of the one before it; `None` if that was the last one told."""
        for name, after in places:
            self._follows[self._last if after is None else after] = name
            self._last = name

    def build(self, steps: int) -> bool:
        """Go on by so many steps; true if there are more, else the table is whole.

        Raises:
            TooCrowded: Two routes have no room between them.
            KeyError: A route came without a place, or has one and did not come. As after the former, all is over.
        """
        if self._walk is None:
            self._walk = self._in_order()
            patched = patch(self._before, self._leaving, self._new, self._follows)
            if patched is not None:
                self.table, self._patched = patched, True
        if self._patched:
            return False
        table, ready = self.table, self._ready
        while steps > 0 and ready:
            table.append(ready.popleft())
            steps -= 1
        for route in islice(self._walk, steps):
            steps -= 1
            if route.name in self._new:
                self._run.append(route)
            else:
                self._rank_run(route.rank)
                self._rank = route.rank
                self._kept += 1
                ready.append(route)
        if steps > 0:
            self._rank_run(None)
        if not ready and steps > 0:
            self._require_all()
        return bool(ready) or steps <= 0

    def _require_all(self) -> None:
        if len(self.table.routes) != self._kept + len(self._new):
            raise KeyError("a route has no place")

    def _in_order(self) -> Iterator[Route]:
        yield from self._following(_FIRST)
        for route in self._before.routes:
            if route.name not in self._leaving:
                yield route
                yield from self._following(route.name)

    def _following(self, name: str) -> Iterator[Route]:
        while name in self._follows:
            name = self._follows[name]
            yield self._new[name]

    def _rank_run(self, until: int | None) -> None:
        """Give the new routes since the last one that stays ranks before `until`; `None`: nobody comes after them."""
        run = self._run
        if not run:
            return
        step = RANK_STEP if until is None else (until - self._rank) // (len(run) + 1)
        if step < 1:
            raise TooCrowded
        for route in run:
            self._rank += step
            route.rank = self._rank
        self._ready.extend(run)
        self._run = []

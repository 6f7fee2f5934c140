"""Consistent hashing on a ring (Karger et al. 1997; points by hash as in ketama).

Each endpoint has many points on a circle of 64-bit numbers; a key belongs to the next point. An endpoint's points
follow from its own name and weight, so if one leaves only its keys move.
"""

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Generator, Sequence
from hashlib import blake2b
from struct import unpack
from typing import TypeVar

from toska_common.balancing.base import Balancer, Named, Usable, outcome_of

POINTS = 160
"""Points of an endpoint of mean weight: shares are then even within about 8% (one standard deviation)."""
MAX_POINTS = 1 << 20
"""Largest ring; of more endpoints each has fewer points."""

_STEP = 1024
"""Points made or sorted in one step."""
_PARTS, _PART_BITS = 1 << 10, 64 - 10
_OWNER = (1 << 20) - 1
"""A place on the ring is a number whose last 20 bits say whose it is: one array to search and nothing to look up."""

N = TypeVar("N", bound=Named)


class RingHash(Balancer[N]):
    """The endpoint that owns a key.

    Making a ring takes 4 ms for a hundred endpoints and 60 for a thousand. Who cannot do without its thread for so long
    has it made `in_steps`.
    """

    def __init__(
        self,
        endpoints: Sequence[N],
        weights: Sequence[float] | None = None,
        *,
        chance: random.Random | None = None,
        places: "array[int] | None" = None,
    ) -> None:
        super().__init__(endpoints, weights, chance=chance)
        if places is None:
            places = outcome_of(placing([endpoint.key for endpoint in self.endpoints], self.weights))
        self._places = places

    @classmethod
    def in_steps(cls, endpoints: Sequence[N], weights: Sequence[float]) -> "Generator[None, None, RingHash[N]]":
        """Make one in steps of under a millisecond; what the generator returns is the balancer."""
        places = yield from placing([endpoint.key for endpoint in endpoints], weights)
        return cls(endpoints, weights, places=places)

    def pick(self, usable: Usable[N] | None = None, key: int = 0, now: float = 0.0) -> N | None:
        places = self._places
        if not places:
            return None
        at = bisect_right(places, key)
        if at == len(places):
            at = 0
        first = self.endpoints[places[at] & _OWNER]
        if usable is None or usable(first):
            return first
        asked = {places[at] & _OWNER}
        # Onwards round the ring: keys of an endpoint that is away spread over all the others.
        for step in range(1, len(places)):
            owner = places[(at + step) % len(places)] & _OWNER
            if owner not in asked:
                if usable(self.endpoints[owner]):
                    return self.endpoints[owner]
                asked.add(owner)
                if len(asked) == len(self.endpoints):
                    break
        return None


def placing(names: Sequence[str], weights: Sequence[float]) -> "Generator[None, None, array[int]]":
    """Make a ring step by step: the places in their order.

    Points are put into parts of the circle as they are made, so that each part can be sorted by itself.
    """
    parts: list[list[int]] = [[] for _ in range(_PARTS)]
    since = 0
    for index, (name, count) in enumerate(zip(names, point_counts(weights), strict=True)):
        for point in _points_of(name, count):
            parts[point >> _PART_BITS].append(point & ~_OWNER | index)
        since += count
        if since >= _STEP:
            since = 0
            yield
    places = array("Q")
    for part in parts:
        part.sort()
        places.extend(part)
        since += len(part)
        if since >= _STEP:
            since = 0
            yield
    return places


def point_counts(weights: Sequence[float]) -> list[int]:
    """How many points each endpoint gets.

    Measured against the mean weight, rounded up to a power of two, and not against the sum, so that the others' points
    stay as they are when one comes or goes.
    """
    if not weights:
        return []
    mean = 2.0 ** math.ceil(math.log2(sum(weights) / len(weights)))
    size = POINTS * 2 ** math.ceil(math.log2(len(weights)))
    points = max(1.0, POINTS * min(1.0, MAX_POINTS / size))
    return [max(1, round(points * weight / mean)) for weight in weights]


def _points_of(name: str, count: int) -> list[int]:
    found: list[int] = []
    for part in range(-(-count // 8)):
        found += unpack("<8Q", blake2b(b"%d:" % part + name.encode()).digest())
    return found[:count]

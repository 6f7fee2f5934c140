"""Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4).

Endpoints fill a table in turn, each by a permutation of its own; a key's place in the table names its endpoint. A pick
is one look into the table, and the shares are even within a percent. When one of n leaves, few keys move besides its
own.
"""

import random
from array import array
from collections.abc import Generator, Sequence
from hashlib import blake2b
from struct import unpack
from typing import TypeVar

from toska_common.balancing.base import Balancer, Named, Usable, outcome_of

TABLE_SIZES = (65_537, 655_373)
"""Primes. The first serves up to a hundredth of it in endpoints, as the paper asks for evenness; then the second,
which takes 1.5 s to fill and is even within a sixth for 100,000 endpoints."""
PROBES = 64
"""Places looked at for a usable endpoint before all are asked in turn."""
_STEP = 1024
"""Places looked at in one step of filling: well under a millisecond."""
_NAMES = 256
"""Likewise, names hashed."""
_EMPTY = 0xFFFFFFFF
_WHOLE = 1.0 - 1e-9

N = TypeVar("N", bound=Named)


class Maglev(Balancer[N]):
    """The endpoint that owns a key.

    Filling the table takes 50 ms, or a second for more than 655 endpoints. Who cannot do without its thread for so
    long has it filled `in_steps`.
    """

    def __init__(
        self,
        endpoints: Sequence[N],
        weights: Sequence[float] | None = None,
        *,
        chance: random.Random | None = None,
        table: "array[int] | None" = None,
    ) -> None:
        super().__init__(endpoints, weights, chance=chance)
        self._table = fill([endpoint.key for endpoint in self.endpoints], self.weights) if table is None else table

    @classmethod
    def in_steps(cls, endpoints: Sequence[N], weights: Sequence[float]) -> "Generator[None, None, Maglev[N]]":
        """Make one in steps of under a millisecond; what the generator returns is the balancer."""
        table = yield from filling([endpoint.key for endpoint in endpoints], weights)
        return cls(endpoints, weights, table=table)

    def pick(self, usable: Usable[N] | None = None, key: int = 0, now: float = 0.0) -> N | None:
        table = self._table
        if not table:
            return None
        at = key % len(table)
        endpoint = self.endpoints[table[at]]
        if usable is None or usable(endpoint):
            return endpoint
        for step in range(1, PROBES):
            other = self.endpoints[table[(at + step) % len(table)]]
            if other is not endpoint and usable(other):
                return other
        return self.scan(usable, table[at])


def fill(names: Sequence[str], weights: Sequence[float]) -> "array[int]":
    """The table: at each place the index of its endpoint."""
    return outcome_of(filling(names, weights))


def filling(names: Sequence[str], weights: Sequence[float]) -> "Generator[None, None, array[int]]":
    """Fill a table step by step."""
    if not names:
        return array("L")
    size = next((size for size in TABLE_SIZES if len(names) * 100 <= size), TABLE_SIZES[-1])
    place: list[int] = []
    skip: list[int] = []
    for start in range(0, len(names), _NAMES):
        _add_permutations(names[start : start + _NAMES], size, place, skip)
        yield
    heaviest = max(weights)
    shares = [weight / heaviest for weight in weights]
    credit = [0.0] * len(names)
    table = array("L", [_EMPTY]) * size
    left = size
    # The fuller the table, the longer the search for an empty place: as many places are looked at in every step.
    until = left - left * _STEP // size
    while True:
        for index, share in enumerate(shares):
            credit[index] += share
            if credit[index] < _WHOLE:
                continue  # who weighs half as much goes every second round
            credit[index] -= 1.0
            at, step = place[index], skip[index]
            while table[at] != _EMPTY:
                at += step
                if at >= size:
                    at -= size
            table[at] = index
            place[index] = at
            left -= 1
            if left <= until:
                if not left:
                    return table
                until = left - max(1, left * _STEP // size)
                yield


def _add_permutations(names: Sequence[str], size: int, place: list[int], skip: list[int]) -> None:
    """Where each endpoint begins, and how far it goes each time: with a prime size it comes by every place."""
    for name in names:
        first, second = unpack("<2Q", blake2b(name.encode(), digest_size=16).digest())
        place.append(first % size)
        skip.append(second % (size - 1) + 1)

"""Picking one of several equivalent endpoints. Pure: no clock, no I/O, randomness handed in.

A balancer is built for one set of endpoints and thrown away when that changes; what must outlive it, such as the
number of requests in flight, is the endpoints' own. Weights are whole numbers from 1.

    RoundRobin     in turn, by weight, spread evenly: 3:1:1 is a, b, a, c, a and not a, a, a, b, c (nginx's smooth form)
    LeastRequest   the less loaded of two drawn at random ("power of two choices"): nearly as good as asking all, and
                   without the herd that forms when everybody knows who is least loaded
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

MAX_SCHEDULE = 4096
"""Longest turn of a round robin; larger weights are scaled down to fit."""


class Weighted(Protocol):
    """What a balancer needs to know of an endpoint."""

    @property
    def weight(self) -> int: ...


class Loaded(Weighted, Protocol):
    """An endpoint that counts its requests in flight."""

    @property
    def in_flight(self) -> int: ...


E = TypeVar("E", bound=Weighted)
L = TypeVar("L", bound=Loaded)


def _always(_: object) -> bool:
    return True


class RoundRobin(Generic[E]):
    """Endpoints in turn, by weight."""

    def __init__(self, endpoints: Sequence[E], *, chance: random.Random | None = None) -> None:
        self._schedule = smooth_schedule(endpoints)
        # A random start: thousands of callers that got the same list at once must not all begin with its first.
        self._next = (chance or random.Random()).randrange(len(self._schedule)) if self._schedule else 0  # noqa: S311

    def pick(self, usable: Callable[[E], bool] = _always) -> E | None:
        """The next endpoint that is `usable`; `None` if none is."""
        schedule = self._schedule
        for _ in schedule:
            endpoint = schedule[self._next]
            self._next = (self._next + 1) % len(schedule)
            if usable(endpoint):
                return endpoint
        return None


class LeastRequest(Generic[L]):
    """The less loaded of two endpoints drawn at random by weight; load is requests in flight per weight."""

    def __init__(self, endpoints: Sequence[L], *, chance: random.Random | None = None) -> None:
        self._endpoints = list(endpoints)
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._equal = len({endpoint.weight for endpoint in endpoints}) <= 1

    def pick(self, usable: Callable[[L], bool] = _always) -> L | None:
        """An endpoint that is `usable`; `None` if none is."""
        candidates = [endpoint for endpoint in self._endpoints if usable(endpoint)]
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        first, second = self._draw_two(candidates)
        # A tie goes to the first drawn, so that without load the shares are those of the weights.
        return second if second.in_flight * first.weight < first.in_flight * second.weight else first

    def _draw_two(self, candidates: list[L]) -> tuple[L, L]:
        if self._equal:
            one, other = self._chance.sample(range(len(candidates)), 2)
            return candidates[one], candidates[other]
        first = self._draw(candidates)
        return first, self._draw([endpoint for endpoint in candidates if endpoint is not first])

    def _draw(self, candidates: list[L]) -> L:
        return self._chance.choices(candidates, weights=[endpoint.weight for endpoint in candidates])[0]


def smooth_schedule(endpoints: Sequence[E]) -> list[E]:
    """One whole turn in which each endpoint stands as often as its weight says, as evenly spread as can be.

    The algorithm is nginx's: each step adds every endpoint's weight to its credit, the highest credit goes next and
    pays the sum of the weights.
    """
    weights = _scaled([endpoint.weight for endpoint in endpoints])
    total = sum(weights)
    credit = [0] * len(weights)
    schedule: list[E] = []
    for _ in range(total):
        credit = [held + weight for held, weight in zip(credit, weights, strict=True)]
        best = max(range(len(credit)), key=credit.__getitem__)
        credit[best] -= total
        schedule.append(endpoints[best])
    return schedule


def _scaled(weights: list[int]) -> list[int]:
    divisor = math.gcd(*weights) or 1
    reduced = [weight // divisor for weight in weights]
    total = sum(reduced)
    limit = max(MAX_SCHEDULE, len(weights))
    if total <= limit:
        return reduced
    return [max(1, weight * limit // total) for weight in reduced]

"""Balancers that draw endpoints at random: blindly, or the less loaded of two."""

import random
from collections.abc import Sequence
from typing import TypeVar

from toska_common.balancing.base import Balancer, E, Loaded, Usable
from toska_common.balancing.turns import interleave

DRAWS = 16
"""How often a usable endpoint is hoped for before all are asked in turn."""

L = TypeVar("L", bound=Loaded)


class Random(Balancer[E]):
    """Any endpoint, by weight."""

    def __init__(
        self, endpoints: Sequence[E], weights: Sequence[float] | None = None, *, chance: random.Random | None = None
    ) -> None:
        super().__init__(endpoints, weights, chance=chance)
        # To draw from a round in which each stands as often as its weight says takes one step; by weight, a search.
        self._round = [self.endpoints[index] for index in interleave(self.weights)]

    def pick(self, usable: Usable[E] | None = None, key: int = 0, now: float = 0.0) -> E | None:
        return self.draw(usable)

    def draw(self, usable: Usable[E] | None = None) -> E | None:
        """An endpoint by chance, that is `usable`; `None` if none is."""
        drawn = self._round
        if not drawn:
            return None
        count = len(drawn)
        if usable is None:
            return drawn[int(self._random() * count)]
        for _ in range(min(DRAWS, 2 * count)):
            endpoint = drawn[int(self._random() * count)]
            if usable(endpoint):
                return endpoint
        return self.scan(usable, int(self._random() * len(self.endpoints)))

    def draw_two(self, usable: Usable[E] | None) -> tuple[E | None, E | None]:
        """Two different endpoints that are `usable`, as far as there are any."""
        first = self.draw(usable)
        if first is None or len(self.endpoints) < 2:
            return first, None

        def another(endpoint: E) -> bool:
            return endpoint is not first and (usable is None or usable(endpoint))

        return first, self.draw(another)


class LeastRequest(Random[L]):
    """The less loaded of two endpoints drawn by weight; load is requests in flight per weight.

    Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    def pick(self, usable: Usable[L] | None = None, key: int = 0, now: float = 0.0) -> L | None:
        drawn = self._round
        count = len(drawn)
        if usable is None and count >= 2:  # the hot path, in line; one endpoint may come up twice, by its weight
            one = int(self._random() * count)
            other = int(self._random() * (count - 1))
            if other >= one:
                other += 1
            first, second = drawn[one], drawn[other]
        else:
            first, second = self.draw_two(usable)
            if first is None or second is None:
                return first
        # A tie goes to the first drawn, so that without load the shares are those of the weights.
        return second if second.in_flight * first.weight < first.in_flight * second.weight else first

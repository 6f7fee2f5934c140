"""Round robin: endpoints in turn, by weight."""

import heapq
import random
from collections.abc import Sequence

from toska_common.balancing.base import Balancer, E, Usable

MAX_TURNS = 1024
"""About the longest round; larger weights are scaled down to fit. A round of more endpoints has a turn for each."""
_GOLDEN = 0.6180339887498949


class RoundRobin(Balancer[E]):
    """Endpoints in turn; a heavy one several times in a round, spread evenly over it."""

    def __init__(
        self, endpoints: Sequence[E], weights: Sequence[float] | None = None, *, chance: random.Random | None = None
    ) -> None:
        super().__init__(endpoints, weights, chance=chance)
        self._round = [self.endpoints[index] for index in interleave(self.weights)]
        # A random start: thousands of callers that got the same list at once must not all begin with its first.
        self._next = int(self._random() * len(self._round))

    def pick(self, usable: Usable[E] | None = None, key: int = 0, now: float = 0.0) -> E | None:
        turns = self._round
        if not turns:
            return None
        at = self._next
        if usable is None:
            self._next = at + 1 if at + 1 < len(turns) else 0
            return turns[at]
        for step in range(len(turns)):
            here = (at + step) % len(turns)
            if usable(turns[here]):
                self._next = (here + 1) % len(turns)
                return turns[here]
        return None


def interleave(weights: Sequence[float]) -> list[int]:
    """One round in which each index stands as often as its weight says, as evenly spread as can be.

    Earliest deadline first: an endpoint of weight w is due w times, 1/w of the round apart, and whoever is due next
    goes next. First times are scattered by the golden ratio, or the light ones would all come at once in the middle.
    """
    if not weights:
        return []
    turns = _turns(weights)
    if max(turns) == 1:
        return list(range(len(turns)))
    due = [((0.5 + index * _GOLDEN) % 1.0 / count, index, count) for index, count in enumerate(turns)]
    heapq.heapify(due)
    found: list[int] = []
    for _ in range(sum(turns)):
        at, index, count = due[0]
        found.append(index)
        heapq.heapreplace(due, (at + 1 / count, index, count))
    return found


def _turns(weights: Sequence[float]) -> list[int]:
    """Turns of each in a round: in proportion to the weights, at least one."""
    least, total = min(weights), sum(weights)
    whole = [round(weight / least) for weight in weights]
    exact = all(abs(weight / least - count) < 1e-9 for weight, count in zip(weights, whole, strict=True))
    if exact and sum(whole) <= max(MAX_TURNS, len(weights)):
        return whole
    integral = [round(weight) for weight in weights]
    if integral == list(weights) and total <= MAX_TURNS:
        return integral
    scale = max(MAX_TURNS, len(weights)) / total
    return [max(1, round(weight * scale)) for weight in weights]

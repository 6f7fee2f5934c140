"""Peak EWMA: the cheaper of two endpoints, where cost is expected latency times the load.

The average jumps to a sample that is slower than it and comes down slowly, so that an endpoint which begins to stall
is left alone after its first slow answer, and is trusted again step by step. The idea is Finagle's (`p2cPeakEwma`).
"""

import math
from typing import Protocol, TypeVar

from toska_common.balancing.base import Loaded, Usable
from toska_common.balancing.chance import Random

DECAY_S = 10.0
"""Time constant: after so long a sample has lost two thirds of its say."""
UNKNOWN_COST_S = 1.0
"""Latency to reckon with while an endpoint's first answers are outstanding: a newcomer gets one request to prove itself
with, and not everybody's."""


class LatencyAverage:
    """The latency to expect from one endpoint, in seconds; 0 before the first sample."""

    __slots__ = ("at", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Take a sample, at monotonic `now`."""
        if seconds > self.value:
            self.value = seconds
        else:
            keep = math.exp(-max(0.0, now - self.at) / DECAY_S)
            self.value = self.value * keep + seconds * (1.0 - keep)
        self.at = now

    def expect(self, now: float) -> float:
        """What to expect at `now`: what has long not been seen is half forgotten, so that it is tried again."""
        age = now - self.at
        return self.value * math.exp(-age / DECAY_S) if age > 0 else self.value


class Timed(Loaded, Protocol):
    """An endpoint whose latency is known."""

    @property
    def latency(self) -> LatencyAverage: ...


T = TypeVar("T", bound=Timed)


class PeakEwma(Random[T]):
    """The cheaper of two endpoints drawn by weight."""

    def pick(self, usable: Usable[T] | None = None, key: int = 0, now: float = 0.0) -> T | None:
        first, second = self.draw_two(usable)
        if first is None or second is None:
            return first
        return second if cost(second, now) < cost(first, now) else first


def cost(endpoint: Timed, now: float) -> float:
    """Seconds that one more request would wait, by weight; 0 of an endpoint that nobody has asked yet."""
    expected = endpoint.latency.expect(now)
    if not expected and endpoint.in_flight:
        expected = UNKNOWN_COST_S
    return expected * (endpoint.in_flight + 1) / endpoint.weight

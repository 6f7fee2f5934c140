"""What every balancer takes and offers, and what it needs to know of an endpoint."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar


class Weighted(Protocol):
    """An endpoint with a share of the traffic: a whole number from 1."""

    @property
    def weight(self) -> int: ...


class Loaded(Weighted, Protocol):
    """An endpoint that counts its requests in flight."""

    @property
    def in_flight(self) -> int: ...


class Named(Weighted, Protocol):
    """An endpoint with a name of its own, the same in every process: what its place for a key follows from."""

    @property
    def key(self) -> str: ...


E = TypeVar("E", bound=Weighted)
T = TypeVar("T")

Usable = Callable[[E], bool]
"""Whether an endpoint may be picked now: its circuit is closed, it has not been tried already."""


class Balancer(ABC, Generic[E]):
    """Chooses among a fixed set of endpoints.

    Args:
        endpoints: The set.
        weights: Their shares, above 0, where they are not the endpoints' own; in the same order.
        chance: Source of randomness; one of its own if left out.
    """

    def __init__(
        self, endpoints: Sequence[E], weights: Sequence[float] | None = None, *, chance: random.Random | None = None
    ) -> None:
        self.endpoints = list(endpoints)
        self.weights = [float(endpoint.weight) for endpoint in endpoints] if weights is None else list(weights)
        self._random = (chance or random.Random()).random  # noqa: S311 - spreads load, guards nothing

    @abstractmethod
    def pick(self, usable: Usable[E] | None = None, key: int = 0, now: float = 0.0) -> E | None:
        """An endpoint that is `usable`; `None` if none is.

        Args:
            usable: Asked about endpoints until one is; all are usable if left out.
            key: What balancers by hash go by (`hash_of`).
            now: Monotonic seconds, for balancers by latency.
        """

    def scan(self, usable: Usable[E], start: int) -> E | None:
        """The first usable endpoint from a place in the list on: where chance found none."""
        endpoints = self.endpoints
        for step in range(len(endpoints)):
            endpoint = endpoints[(start + step) % len(endpoints)]
            if usable(endpoint):
                return endpoint
        return None


def outcome_of(steps: Generator[None, None, T]) -> T:
    """What comes of steps that are taken all at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def hash_of(key: bytes) -> int:
    """64 bits that stand for a key: the same in every process and release, and not to be steered by whoever asks."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")

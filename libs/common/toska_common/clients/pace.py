"""When whoever holds a lease goes to the registry next; shared by the mesh's services and by users' apps."""

import random
from datetime import timedelta

FIRST_RETRY_S = 0.2
LEAST_PAUSE_S = 0.05


class RenewalPace:
    """Pauses between the renewals of one lease.

    All goes well: a third of the TTL, up to 15 % less at random, so that those who start together do not renew so,
    and two renewals may fail before the lease lapses. After a failure: a random part of a bound that doubles up to that
    third, so that a registry that comes back is not met by everybody at once.

    Attributes:
        failures: In a row, up to now.
    """

    def __init__(self, ttl: timedelta, chance: random.Random | None = None) -> None:
        self._interval_s = ttl.total_seconds() / 3
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self.failures = 0

    def succeeded(self) -> None:
        """The registry took it."""
        self.failures = 0

    def failed(self) -> None:
        """The registry is away, or refuses."""
        self.failures += 1

    def pause_s(self) -> float:
        """How long to wait from now on, in seconds."""
        if not self.failures:
            return self._interval_s * self._chance.uniform(0.85, 1.0)
        bound = min(self._interval_s, FIRST_RETRY_S * 2 ** min(self.failures, 10))
        return self._chance.uniform(min(LEAST_PAUSE_S, bound), bound)

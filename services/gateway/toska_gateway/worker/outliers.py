"""Which endpoints leave the rotation because of what requests found there, and for how long.

    in rotation ──consecutive failures──▶ ejected ──time──▶ in rotation; the next ejection is twice as long,
                                                            unless it went well for a while

Pure: whoever watches attempts reports what they came to, with `now` (monotonic seconds). Each worker judges by what it
sees itself: a verdict is there with the very failure that completes it, and a worker that cannot reach an endpoint
takes it from no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_MAX_DOUBLINGS: Final = 32
"""(2**1024 is no float, and an endpoint can stay away for as many ejections.)"""


class Suspect(Protocol):
    """What is kept of an endpoint.

    Attributes:
        failures: Failed connects in a row.
        gateway_errors: Answers of 502, 503 and 504, resets and timeouts in a row.
        server_errors: The same with every 5xx.
        ejections: How often the time away has been doubled.
        ejected_until: Monotonic seconds.
        unreachable: Whether it is, or was last, ejected for failed connects.
    """

    failures: int
    gateway_errors: int
    server_errors: int
    ejections: int
    ejected_until: float
    unreachable: bool


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """When an endpoint is ejected; times in seconds, a number of 0 ejects for none."""

    consecutive_failures: int = 1
    consecutive_gateway_errors: int = 0
    consecutive_5xx: int = 0
    base_ejection_s: float = 5.0
    max_ejection_s: float = 60.0
    max_ejected_ratio: float = 1.0

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "OutlierPolicy":
        """The policy of a cluster's settings."""
        return cls(
            consecutive_failures=settings["consecutive_failures"],
            consecutive_gateway_errors=settings["consecutive_gateway_errors"],
            consecutive_5xx=settings["consecutive_5xx"],
            base_ejection_s=settings["base_ejection"],
            max_ejection_s=settings["max_ejection"],
            max_ejected_ratio=settings["max_ejected_percent"] / 100,
        )

    @property
    def by_answers(self) -> bool:
        """Whether anything but failed connects counts."""
        return bool(self.consecutive_gateway_errors or self.consecutive_5xx)

    def connect_failed(self, endpoint: Suspect, everybody: Sequence[Suspect], now: float) -> bool:
        """Count a failed connect; tells whether the endpoint is ejected for it."""
        endpoint.failures += 1
        return endpoint.failures >= self.consecutive_failures and self._eject(
            endpoint, everybody, now, unreachable=True
        )

    def connected(self, endpoint: Suspect, now: float) -> bool:
        """A connect went well: forget those that failed; tells whether that ends an ejection, which proved wrong."""
        if not endpoint.failures:
            return False
        endpoint.failures = 0
        if not endpoint.unreachable:
            return False
        endpoint.ejections = 0
        if endpoint.ejected_until <= now:
            return False
        endpoint.ejected_until = 0.0
        return True

    def answered(self, endpoint: Suspect, status: int, everybody: Sequence[Suspect], now: float) -> bool:
        """Count an answer; tells whether the endpoint is ejected for it."""
        if status < 500:
            endpoint.gateway_errors = endpoint.server_errors = 0
            return False
        if status in GATEWAY_ERRORS:
            return self.broke_off(endpoint, everybody, now)
        endpoint.gateway_errors = 0
        endpoint.server_errors += 1
        return self._judge(endpoint, everybody, now)

    def broke_off(self, endpoint: Suspect, everybody: Sequence[Suspect], now: float) -> bool:
        """Count a reset, a timeout or what was no response; tells whether the endpoint is ejected for it."""
        endpoint.gateway_errors += 1
        endpoint.server_errors += 1
        return self._judge(endpoint, everybody, now)

    def _judge(self, endpoint: Suspect, everybody: Sequence[Suspect], now: float) -> bool:
        gateway_errors, server_errors = self.consecutive_gateway_errors, self.consecutive_5xx
        return (
            bool(gateway_errors and endpoint.gateway_errors >= gateway_errors)
            or bool(server_errors and endpoint.server_errors >= server_errors)
        ) and self._eject(endpoint, everybody, now, unreachable=False)

    def _eject(self, endpoint: Suspect, everybody: Sequence[Suspect], now: float, *, unreachable: bool) -> bool:
        if endpoint.ejected_until > now:
            return False
        away = sum(one.ejected_until > now for one in everybody)
        if away and away + 1 > self.max_ejected_ratio * len(everybody):
            return False  # what is left would have to carry everything
        if not unreachable:
            self._forgive(endpoint, now)
        endpoint.ejected_until = now + self._length(endpoint)
        endpoint.ejections += 1
        endpoint.unreachable = unreachable
        if not unreachable:
            endpoint.gateway_errors = endpoint.server_errors = 0
        return True

    def _forgive(self, endpoint: Suspect, now: float) -> None:
        """Take back one doubling for every such time in a row that went well; a connect that works takes back all."""
        if endpoint.ejections:
            well = now - endpoint.ejected_until
            endpoint.ejections = max(0, endpoint.ejections - int(well / self._length(endpoint)))

    def _length(self, endpoint: Suspect) -> float:
        return min(self.base_ejection_s * 2 ** min(endpoint.ejections, _MAX_DOUBLINGS), self.max_ejection_s)

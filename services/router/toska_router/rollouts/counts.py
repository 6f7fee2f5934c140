"""What one side of a rollout has had to do in a step, added up over all gateways."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from toska_common.contracts.rollouts import SideNumbers
from toska_common.contracts.tallies import CellCounts
from toska_common.latencies import BOUNDS, BOUNDS_US
from toska_common.quantiles import quantile

_MICROSECOND: Final = timedelta(microseconds=1)
_NOTHING: Final[Mapping[str, int]] = {}


def no_buckets() -> tuple[int, ...]:
    """A histogram in which there is nothing."""
    return (0,) * (len(BOUNDS) + 1)


@dataclass(frozen=True, slots=True)
class Side:
    """Requests of one side; `buckets` has a count for each of the mesh's bounds, and one for the rest."""

    requests: int = 0
    failed: int = 0
    gone: int = 0
    reasons: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    buckets: tuple[int, ...] = field(default_factory=no_buckets)

    @property
    def error_ratio(self) -> float | None:
        """The share that failed; `None` of nothing."""
        return self.failed / self.requests if self.requests else None

    def latency_s(self, share: float) -> float | None:
        """A percentile in seconds, as seen; `None` of nothing."""
        return quantile(BOUNDS, self.buckets, share)

    def slower_than(self, place: int) -> int:
        """How many took longer than the bound at `place`."""
        return sum(self.buckets[place + 1 :])

    @property
    def timed(self) -> int:
        """How many there are latencies of."""
        return sum(self.buckets)

    def numbers(self) -> SideNumbers:
        """For people."""
        return SideNumbers(
            requests=self.requests,
            failed=self.failed,
            gone=self.gone,
            error_ratio=_rounded(self.error_ratio),
            p50_ms=_as_ms(self.latency_s(0.5)),
            p95_ms=_as_ms(self.latency_s(0.95)),
            p99_ms=_as_ms(self.latency_s(0.99)),
            reasons=dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))),
        )


def place_of(limit: timedelta) -> int:
    """The place of the first bound that is no lower than `limit`: limits are rounded up to what can be told apart."""
    return min(bisect_left(BOUNDS_US, limit // _MICROSECOND), len(BOUNDS_US) - 1)


def add_up(cells: Iterable[CellCounts]) -> Side:
    """One side, out of what each gateway has counted of it."""
    requests = failed = gone = 0
    reasons: Counter[str] = Counter()
    buckets = [0] * (len(BOUNDS) + 1)
    for cell in cells:
        requests, failed, gone = requests + cell.requests, failed + cell.failed, gone + cell.gone
        reasons.update(cell.reasons)
        for place, count in cell.buckets.items():
            # (a gateway of another version may have more bounds: what is beyond ours is the rest)
            buckets[min(place, len(BOUNDS))] += count
    return Side(requests, failed, gone, dict(reasons), tuple(buckets))


def _as_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)

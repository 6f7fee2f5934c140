"""How an app does, by its own metrics: what it reports with each renewal. Pure: metrics and the time come in.

The score is the product of three factors, each 1 while all is well:

    errors    1 less the share of answers from 500 on
    latency   falls once the median is more than `SLOWER` times what it used to be in good times
    load      falls once more than `BUSY` of the capacity is in use, where the capacity is known

Errors and latency are those of a window, which is closed at a report once it has `ENOUGH` requests. Without them it
stays open, for `AT_MOST_S`; then there is nothing to say against the instance any more. The median is read off a
histogram: one long event stream must not make an app look slow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric

from toska_common.contracts.discovery import Report
from toska_common.mesh import callers

ENOUGH = 10
AT_MOST_S = 30.0
SLOWER = 4.0
BUSY = 0.8
FULL = 1.2
_HABIT = 0.1
_SLOW_HABIT = 0.005
"""How much of a window's median goes into what is usual; of a slow one so little that it counts as slow for a quarter
of an hour, and not for ever."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What an app has done since it started; `within_s` counts requests by the bound that they stayed within."""

    requests: float = 0
    failures: float = 0
    in_flight: float = 0
    within_s: Mapping[float, float] = field(default_factory=dict[float, float])
    callers: Mapping[str, int] = field(default_factory=dict[str, int])


def read_totals(metrics: Iterable[Metric]) -> Totals:
    """Find the totals among the metrics of an app, or the sums over its workers."""
    requests = failures = in_flight = 0.0
    within: dict[float, float] = {}
    by_caller: dict[str, int] = {}
    for metric in metrics:
        for sample in metric.samples:
            match sample.name:
                case "toska_http_requests_total":
                    requests += sample.value
                    failures += sample.value if sample.labels["status"].startswith("5") else 0
                case "toska_http_requests_in_flight":
                    in_flight += sample.value
                case "toska_http_request_duration_seconds_bucket":
                    bound = float(sample.labels["le"])
                    within[bound] = within.get(bound, 0) + sample.value
                case name if name == f"{callers.FAMILY}_total":
                    by_caller[sample.labels["caller"]] = int(sample.value)
                case _:
                    pass
    return Totals(requests, failures, in_flight, within, by_caller)


class Vitals:
    """Makes reports of totals.

    Args:
        capacity: Requests at a time that the app can serve well; unknown if `None`.
        now: When it starts, in monotonic seconds.
    """

    def __init__(self, capacity: int | None, now: float) -> None:
        self._capacity = capacity
        self._begin = Totals()
        self._begun_at = now
        self._usual_s: float | None = None
        self._error_ratio = 0.0
        self._median_s: float | None = None
        self._factor = 1.0

    def report(self, totals: Totals, now: float) -> Report:
        """The report at `now`."""
        self._close_window(totals, now)
        load = None if self._capacity is None else totals.in_flight / self._capacity
        score = self._factor * _load_factor(load)
        return Report(
            score=round(score, 3),
            in_flight=max(0, int(totals.in_flight)),
            load=None if load is None else round(max(0.0, load), 3),
            error_ratio=round(self._error_ratio, 4),
            latency_ms=None if self._median_s is None else round(self._median_s * 1000, 1),
            requests=int(totals.requests),
            callers=totals.callers,
        )

    def _close_window(self, totals: Totals, now: float) -> None:
        requests = totals.requests - self._begin.requests
        if requests < 0:  # the counts began anew
            self._begin = Totals()
            requests = totals.requests
        if requests < ENOUGH:
            if now - self._begun_at >= AT_MOST_S:
                self._error_ratio, self._median_s, self._factor = 0.0, None, 1.0
                self._begin, self._begun_at = totals, now
            return
        self._error_ratio = min(1.0, max(0.0, (totals.failures - self._begin.failures) / requests))
        self._median_s = _median(
            [(bound, count - self._begin.within_s.get(bound, 0)) for bound, count in sorted(totals.within_s.items())]
        )
        self._factor = (1 - self._error_ratio) * self._latency_factor()
        self._begin, self._begun_at = totals, now

    def _latency_factor(self) -> float:
        median, usual = self._median_s, self._usual_s
        if median is None:
            return 1.0
        if usual is None:
            self._usual_s = median
            return 1.0
        slower = median > SLOWER * usual
        self._usual_s = usual + (_SLOW_HABIT if slower else _HABIT) * (median - usual)
        return SLOWER * usual / median if slower else 1.0


def _median(buckets: Sequence[tuple[float, float]]) -> float | None:
    """The median of a cumulative histogram, evenly spread within its bucket; the last finite bound at most."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    half = buckets[-1][1] / 2
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= half:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (half - below) / (count - below)
        lower, below = bound, count
    return lower


def _load_factor(load: float | None) -> float:
    return 1.0 if load is None else min(1.0, max(0.0, (FULL - load) / (FULL - BUSY)))

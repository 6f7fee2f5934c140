"""What a worker counts, kept as plain integers so that a request pays for a few additions."""

from bisect import bisect_left
from typing import Any, Final

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, in seconds; one more bucket takes the rest."""


class RouteStats:
    """Requests of one route: by status, with latency from the request's head to the response's last byte."""

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def record(self, status: int, seconds: float) -> None:
        """Count one request."""
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def as_json(self) -> dict[str, Any]:
        """The counts so far, for the parent to sum."""
        return {"statuses": dict(self.statuses), "buckets": list(self.buckets), "seconds": self.seconds}


class WorkerStats:
    """Counts of one worker process; routes keep theirs across new tables, by name."""

    __slots__ = (
        "accepted",
        "attempts",
        "bad_requests",
        "circuit_refusals",
        "connect_failures",
        "ejections",
        "faults",
        "handshake_failures",
        "handshakes",
        "mirror_failures",
        "mirror_skipped",
        "mirrored",
        "rate_limited",
        "refused",
        "retries",
        "routes",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.mirror_failures = 0
        self.mirror_skipped = 0
        self.mirrored = 0
        self.rate_limited = 0
        self.refused = 0
        self.handshakes = 0
        self.faults = 0
        self.handshake_failures = 0
        self.bad_requests = 0
        self.circuit_refusals = 0
        self.attempts = 0
        self.retries = 0
        self.connect_failures = 0
        self.ejections = 0
        self.routes: dict[str, RouteStats] = {}

    def route(self, name: str) -> RouteStats:
        """The counts of a route, made at its first mention."""
        stats = self.routes.get(name)
        if stats is None:
            stats = self.routes[name] = RouteStats()
        return stats

    def as_json(self) -> dict[str, Any]:
        """Everything counted so far."""
        return {
            "accepted": self.accepted,
            "mirror_failures": self.mirror_failures,
            "mirror_skipped": self.mirror_skipped,
            "mirrored": self.mirrored,
            "rate_limited": self.rate_limited,
            "refused": self.refused,
            "handshakes": self.handshakes,
            "faults": self.faults,
            "handshake_failures": self.handshake_failures,
            "bad_requests": self.bad_requests,
            "circuit_refusals": self.circuit_refusals,
            "attempts": self.attempts,
            "retries": self.retries,
            "connect_failures": self.connect_failures,
            "ejections": self.ejections,
            "routes": {name: stats.as_json() for name, stats in self.routes.items()},
        }

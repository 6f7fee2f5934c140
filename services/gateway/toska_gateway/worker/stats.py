"""What a worker counts, kept as plain integers so that a request pays for a few additions.

The parent takes each count as what has come since it last did (`take`), and adds up: so a sum never falls, whichever
worker ends, and a report is as long as what happened is manifold, not as what there is.
"""

from bisect import bisect_left
from typing import Any, Final

from toska_common.latencies import BOUNDS as BOUNDS

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms that Prometheus is shown, in seconds; one more bucket takes the rest. They are among
`BOUNDS`, by which is counted, so one count serves both."""

COUNTERS: Final = {
    "accepted": "Connections accepted from clients",
    "refused": "Connections refused because of a connection limit",
    "handshakes": "TLS handshakes with clients that were completed",
    "handshake_failures": "Connections that ended, or took too long, before TLS or a PROXY header was through",
    "rate_limited": "Requests refused because their rate limit was used up",
    "rate_limits_alone": "Requests whose limit at mesh scope was counted on this machine, because Redis was away",
    "bad_requests": "Requests refused as malformed or over a limit",
    "circuit_refusals": "Attempts that an open circuit did not let through",
    "attempts": "Requests sent to endpoints, repeats included",
    "retries": "Attempts after one that failed",
    "hedges": "Attempts beside one that takes long",
    "budget_refusals": "Retries and hedges that a cluster's budget did not allow",
    "overloads": "Requests refused because of a cluster's limits",
    "fallbacks": "Requests that a fallback answered",
    "connect_failures": "Connections to endpoints that could not be made",
    "ejections": "Endpoints taken out of rotation after failures",
    "faults": "Requests aborted on purpose",
    "mirrored": "Copies of requests sent to shadow clusters",
    "mirror_failures": "Copies that came to nothing",
    "mirror_skipped": "Requests not copied: no room, no endpoint, or too long a body",
    "access_log_dropped": "Lines of the access log that could not be written",
    "tokens_verified": "Tokens whose signature was checked and holds; one that is known is not checked again",
    "cache_stored": "Responses that were stored",
    "cache_evictions": "Stored responses that made room, or were not wanted enough to stay",
    "cache_served_bytes": "Bytes of bodies that were served from the store",
    "cache_shared_hits": "Responses that were found in the second level",
    "cache_shared_misses": "Responses that were not",
    "cache_shared_late": "Questions that the second level did not answer in time",
    "cache_shared_damaged": "Answers of the second level that were no responses, or others than asked for",
    "traces_exported": "Sampled requests whose spans a collector has taken",
    "traces_dropped": "Sampled requests whose spans came to no collector",
}
"""Counters of a worker as a whole: `toska_gateway_NAME_total`, its help, and an attribute of `WorkerStats`."""


def no_buckets() -> list[int]:
    """The counts of a histogram in which there is nothing."""
    return [0] * (len(BOUNDS) + 1)


def filled(buckets: list[int]) -> dict[int, int]:
    """The buckets that hold something, by their place."""
    return {place: count for place, count in enumerate(buckets) if count}


class RouteStats:
    """Requests of one route, with latency from the request's head to the response's last byte.

    Attributes:
        received: Bytes of requests' bodies.
        sent: Bytes of responses' bodies.
        errors: The gateway's own answers, by code.
        cache: What requests came to at the route's cache, by outcome (`toska_gateway.worker.cache.policy`).
        filters: What went wrong in filters, by `CLASS OUTCOME`.
        exemplars: By bucket, a sampled trace that fell into it, how long it took, and when that was (Unix time).
    """

    __slots__ = (
        "buckets", "cache", "errors", "exemplars", "filters", "received", "seconds", "sent", "statuses",
    )  # fmt: skip

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = no_buckets()
        self.seconds = 0.0
        self.received = 0
        self.sent = 0
        self.errors: dict[str, int] = {}
        self.cache: dict[str, int] = {}
        self.filters: dict[str, int] = {}
        self.exemplars: dict[int, tuple[str, float, float]] = {}

    def record(self, status: int, seconds: float, received: int = 0, sent: int = 0) -> None:
        """Count one request."""
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.received += received
        self.sent += sent

    def failed(self, code: str) -> None:
        """Count an answer of the gateway's own."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def cached(self, outcome: str) -> None:
        """Count what a request came to at the route's cache."""
        self.cache[outcome] = self.cache.get(outcome, 0) + 1

    def filtered(self, name: str, outcome: str) -> None:
        """Count what became of a call of a filter, where it was not as it should be."""
        label = f"{name} {outcome}"
        self.filters[label] = self.filters.get(label, 0) + 1

    def illustrate(self, trace_id: str, seconds: float, at: float) -> None:
        """Keep a sampled trace as an example of how long requests take."""
        self.exemplars[bisect_left(BOUNDS, seconds)] = (trace_id, seconds, at)

    def take(self) -> dict[str, Any]:
        """What has come since the last time; empty if nothing has."""
        if not (self.statuses or self.errors or self.cache or self.filters):
            return {}
        report: dict[str, Any] = {
            "statuses": self.statuses,
            "buckets": filled(self.buckets),
            "seconds": self.seconds,
            "received": self.received,
            "sent": self.sent,
            "errors": self.errors,
            "cache": self.cache,
        }
        if self.filters:
            report["filters"] = self.filters
        if self.exemplars:
            report["exemplars"] = self.exemplars
        self.__init__()
        return report


class EndpointStats:
    """What one endpoint was asked, and what came of it.

    Attributes:
        attempts: Requests that were sent to it, repeats included.
        classes: Responses by the first digit of their status.
        buckets: From the request's sending to the response's head.
        failures: Attempts that broke off, by reason.
        made: Connections.
        connect_buckets: How long making them took.
        unmade: Connections that could not be made, by reason.
        ejections: How often it was taken out of rotation.
    """

    __slots__ = (
        "attempts", "buckets", "classes", "connect_buckets", "connect_seconds", "ejections", "failures", "made",
        "seconds", "unmade",
    )  # fmt: skip

    def __init__(self) -> None:
        self.attempts = 0
        self.classes = [0] * 10
        self.buckets = no_buckets()
        self.seconds = 0.0
        self.failures: dict[str, int] = {}
        self.made = 0
        self.connect_buckets = no_buckets()
        self.connect_seconds = 0.0
        self.unmade: dict[str, int] = {}
        self.ejections = 0

    def answered(self, status: int, seconds: float) -> None:
        """Count a response, whose head came so long after its request was sent."""
        self.classes[status // 100] += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def failed(self, reason: str) -> None:
        """Count an attempt that was sent and broke off."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def connected(self, seconds: float) -> None:
        """Count a connection, TLS included."""
        self.made += 1
        self.connect_buckets[bisect_left(BOUNDS, seconds)] += 1
        self.connect_seconds += seconds

    def not_connected(self, reason: str) -> None:
        """Count a connection that could not be made."""
        self.unmade[reason] = self.unmade.get(reason, 0) + 1

    def take(self) -> dict[str, Any]:
        """What has come since the last time; empty if nothing has."""
        if not (self.attempts or self.made or self.unmade or self.ejections or self.failures or any(self.classes)):
            return {}
        report: dict[str, Any] = {
            "attempts": self.attempts,
            "classes": filled(self.classes),
            "buckets": filled(self.buckets),
            "seconds": self.seconds,
            "failures": self.failures,
            "made": self.made,
            "connect_buckets": filled(self.connect_buckets),
            "connect_seconds": self.connect_seconds,
            "unmade": self.unmade,
            "ejections": self.ejections,
        }
        self.__init__()
        return report


class CellStats:
    """Requests of a watched route that were sent to one cluster, with latency from there to the response's last byte.

    Attributes:
        reasons: Why requests failed: a code of our own, a status, or what alone saved them.
        gone: Those that clients broke off, which nothing else here counts.
    """

    __slots__ = ("buckets", "gone", "reasons", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.gone = 0
        self.reasons: dict[str, int] = {}
        self.buckets = no_buckets()

    def record(self, seconds: float, reason: str) -> None:
        """Count a request; it failed if there is a reason."""
        self.requests += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def report(self) -> dict[str, Any]:
        """All of it."""
        return {
            "requests": self.requests,
            "gone": self.gone,
            "reasons": self.reasons,
            "buckets": filled(self.buckets),
        }


class WorkerStats:
    """Counts of one worker process; routes keep theirs across new tables, and endpoints theirs until they are told."""

    accepted: int
    refused: int
    handshakes: int
    handshake_failures: int
    rate_limited: int
    rate_limits_alone: int
    bad_requests: int
    circuit_refusals: int
    attempts: int
    retries: int
    hedges: int
    budget_refusals: int
    overloads: int
    fallbacks: int
    connect_failures: int
    ejections: int
    faults: int
    mirrored: int
    mirror_failures: int
    mirror_skipped: int
    access_log_dropped: int
    tokens_verified: int
    cache_stored: int
    cache_evictions: int
    cache_served_bytes: int
    cache_shared_hits: int
    cache_shared_misses: int
    cache_shared_late: int
    cache_shared_damaged: int
    traces_exported: int
    traces_dropped: int

    __slots__ = (*COUNTERS, "endpoints", "routes", "watched")

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self.routes: dict[str, RouteStats] = {}
        self.endpoints: dict[tuple[str, str], EndpointStats] = {}
        self.watched: dict[tuple[str, str], CellStats] = {}

    def cell(self, token: str, cluster: str) -> CellStats:
        """The counts under a token for a cluster, until they are taken."""
        cell = self.watched.get((token, cluster))
        if cell is None:
            cell = self.watched[token, cluster] = CellStats()
        return cell

    def route(self, name: str) -> RouteStats:
        """The counts of a route, made at its first mention."""
        stats = self.routes.get(name)
        if stats is None:
            stats = self.routes[name] = RouteStats()
        return stats

    def endpoint(self, cluster: str, key: str) -> EndpointStats:
        """The counts of an endpoint, made at its first mention."""
        stats = self.endpoints.get((cluster, key))
        if stats is None:
            stats = self.endpoints[cluster, key] = EndpointStats()
        return stats

    def take(self) -> dict[str, Any]:
        """Everything that has come since the last time, for the parent to add up."""
        counters: dict[str, int] = {}
        for name in COUNTERS:
            if count := getattr(self, name):
                counters[name] = count
                setattr(self, name, 0)
        endpoints: dict[str, dict[str, Any]] = {}
        for (cluster, key), stats in self.endpoints.items():
            if taken := stats.take():
                endpoints.setdefault(cluster, {})[key] = taken
        routes = {name: taken for name, stats in self.routes.items() if (taken := stats.take())}
        report: dict[str, Any] = {"counters": counters, "routes": routes, "endpoints": endpoints}
        if self.watched:
            watched, self.watched = self.watched, {}
            report["watched"] = [[*names, cell.report()] for names, cell in watched.items()]
        return report

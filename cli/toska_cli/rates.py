"""What happened between two looks at a gateway's counts, by the second."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from toska_common.contracts.gateway_stats import AttemptCounts, ClusterCounts, EndpointCounts, GatewayStats, RouteCounts
from toska_common.quantiles import quantile

_SHARES: Final = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds; None of nothing."""

    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RouteRates:
    """One route."""

    name: str
    requests_per_s: float
    errors_per_s: float  # 5xx
    refusals_per_s: float  # 4xx
    latency: Latency
    received_bytes_per_s: float
    sent_bytes_per_s: float
    errors: dict[str, int]  # the gateway's own answers by code, in the interval


@dataclass(frozen=True, slots=True)
class UpstreamRates:
    """One cluster, or one endpoint of it."""

    cluster: str
    endpoint: str  # empty: the cluster
    attempts_per_s: float
    errors_per_s: float  # 5xx, broken off, or not connected
    latency: Latency
    failures: dict[str, int]  # by reason, in the interval
    active: int
    idle: int
    pending: int
    state: str


@dataclass(frozen=True, slots=True)
class Rates:
    """A gateway, over one interval."""

    seconds: float
    workers: int
    connections: int
    accepted_per_s: float
    routes: tuple[RouteRates, ...]
    clusters: tuple[UpstreamRates, ...]
    endpoints: tuple[UpstreamRates, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)


def rates_between(before: GatewayStats, after: GatewayStats) -> Rates:
    """What happened between two looks; after a restart of the gateway, what has happened since."""
    seconds = max(after.at_seconds - before.at_seconds, 1e-3)
    if after.instance != before.instance:
        before = GatewayStats(instance=after.instance, at_seconds=0.0, workers=0, connections=0, bounds=after.bounds)
    routes = {route.name: route for route in before.routes}
    clusters = {cluster.name: cluster for cluster in before.clusters}
    accepted = after.counters.get("accepted", 0) - before.counters.get("accepted", 0)
    return Rates(
        seconds=seconds,
        workers=after.workers,
        connections=after.connections,
        accepted_per_s=accepted / seconds,
        routes=tuple(
            _route(routes.get(route.name) or RouteCounts(name=route.name), route, after.bounds, seconds)
            for route in after.routes
        ),
        clusters=tuple(
            _cluster(clusters.get(cluster.name) or ClusterCounts(name=cluster.name), cluster, after.bounds, seconds)
            for cluster in after.clusters
        ),
        endpoints=tuple(
            found
            for cluster in after.clusters
            for found in _endpoints(
                clusters.get(cluster.name) or ClusterCounts(name=cluster.name), cluster, after.bounds, seconds
            )
        ),
    )


def _route(before: RouteCounts, after: RouteCounts, bounds: Sequence[float], seconds: float) -> RouteRates:
    statuses = _more(before.statuses, after.statuses)
    return RouteRates(
        name=after.name,
        requests_per_s=sum(statuses.values()) / seconds,
        errors_per_s=_of_class(statuses, "5") / seconds,
        refusals_per_s=_of_class(statuses, "4") / seconds,
        latency=_latency(bounds, before.buckets, after.buckets),
        received_bytes_per_s=(after.received_bytes - before.received_bytes) / seconds,
        sent_bytes_per_s=(after.sent_bytes - before.sent_bytes) / seconds,
        errors=_more(before.errors, after.errors),
    )


def _cluster(before: ClusterCounts, after: ClusterCounts, bounds: Sequence[float], seconds: float) -> UpstreamRates:
    state = "" if after.circuits_open is None else f"{after.circuits_open} open" if after.circuits_open else "closed"
    return _upstream(before, after, bounds, seconds, cluster=after.name, pending=after.pending, state=state)


def _endpoints(
    before: ClusterCounts, after: ClusterCounts, bounds: Sequence[float], seconds: float
) -> Iterator[UpstreamRates]:
    known = {endpoint.key: endpoint for endpoint in before.endpoints}
    for endpoint in after.endpoints:
        earlier = known.get(endpoint.key) or EndpointCounts(key=endpoint.key)
        state = f"ejected by {endpoint.ejected}" if endpoint.ejected else ""
        yield _upstream(earlier, endpoint, bounds, seconds, cluster=after.name, endpoint=endpoint.key, state=state)


def _upstream(
    before: AttemptCounts,
    after: AttemptCounts,
    bounds: Sequence[float],
    seconds: float,
    *,
    cluster: str,
    endpoint: str = "",
    pending: int = 0,
    state: str,
) -> UpstreamRates:
    failures = _more(before.failures, after.failures)
    for reason, count in _more(before.connect_failures, after.connect_failures).items():
        failures[f"connect {reason}"] = count
    answered = _more(before.classes, after.classes).get("5", 0)
    return UpstreamRates(
        cluster=cluster,
        endpoint=endpoint,
        attempts_per_s=(after.attempts - before.attempts) / seconds,
        errors_per_s=(answered + sum(failures.values())) / seconds,
        latency=_latency(bounds, before.buckets, after.buckets),
        failures=failures,
        active=after.active,
        idle=after.idle,
        pending=pending,
        state=state,
    )


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What has been added, by label."""
    added = {label: count - before.get(label, 0) for label, count in after.items()}
    return {label: count for label, count in added.items() if count > 0}


def _of_class(statuses: Mapping[str, int], digit: str) -> int:
    return sum(count for status, count in statuses.items() if status.startswith(digit))


def _latency(bounds: Sequence[float], before: Sequence[int], after: Sequence[int]) -> Latency:
    if not after:
        return Latency()
    counts = [now - then for now, then in zip(after, before or [0] * len(after), strict=True)]
    found = [quantile(bounds, counts, share) for share in _SHARES]
    return Latency(*(None if seconds is None else round(seconds * 1e3, 3) for seconds in found))

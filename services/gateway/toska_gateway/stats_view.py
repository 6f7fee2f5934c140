"""What was counted, as the admin API shows it."""

from typing import Any

from toska_common.contracts.gateway_stats import ClusterCounts, EndpointCounts, GatewayStats, RouteCounts

from toska_gateway.gauges import Gauges
from toska_gateway.totals import Counts, Totals
from toska_gateway.worker.stats import BOUNDS


def build_stats(totals: Totals, gauges: Gauges, *, instance: str, now: float, workers: int) -> GatewayStats:
    """Sums and present state, together."""
    present: dict[str, set[str]] = {}
    for cluster, key in gauges.endpoints:
        present.setdefault(cluster, set()).add(key)
    return GatewayStats(
        instance=instance,
        at_seconds=now,
        workers=workers,
        connections=gauges.connections,
        counters=dict(totals.counters),
        bounds=BOUNDS,
        routes=tuple(_route(name, counts) for name, counts in sorted(totals.routes.items())),
        clusters=tuple(
            _cluster(name, totals, gauges, present.get(name, set()))
            for name in sorted({*totals.clusters, *gauges.clusters})
        ),
    )


def _route(name: str, counts: Counts) -> RouteCounts:
    return RouteCounts(
        name=name,
        statuses=counts.get("statuses", {}),
        errors=counts.get("errors", {}),
        received_bytes=counts.get("received", 0),
        sent_bytes=counts.get("sent", 0),
        seconds=counts.get("seconds", 0.0),
        buckets=_buckets(counts),
    )


def _cluster(name: str, totals: Totals, gauges: Gauges, present: set[str]) -> ClusterCounts:
    standing = gauges.clusters.get(name, {})
    members = totals.endpoints.get(name, {})
    endpoints = tuple(_endpoint(name, key, members.get(key, {}), gauges) for key in sorted({*members, *present}))
    return ClusterCounts(
        name=name,
        **_attempts(totals.clusters.get(name, {})),
        active=sum(endpoint.active for endpoint in endpoints),
        idle=standing.get("idle_connections") or 0,
        connections=standing.get("connections") or 0,
        pending=standing.get("pending_requests") or 0,
        circuits_open=standing.get("circuits_open"),
        endpoints=endpoints,
    )


def _endpoint(cluster: str, key: str, counts: Counts, gauges: Gauges) -> EndpointCounts:
    standing = gauges.endpoints.get((cluster, key), {})
    return EndpointCounts(
        key=key,
        **_attempts(counts),
        active=standing.get("active_requests", 0),
        idle=standing.get("idle_connections", 0),
        ejected=standing.get("ejected", 0),
    )


def _attempts(counts: Counts) -> dict[str, Any]:
    return {
        "attempts": counts.get("attempts", 0),
        "classes": counts.get("classes", {}),
        "failures": counts.get("failures", {}),
        "connect_failures": counts.get("unmade", {}),
        "connections_made": counts.get("made", 0),
        "ejections": counts.get("ejections", 0),
        "seconds": counts.get("seconds", 0.0),
        "buckets": _buckets(counts),
    }


def _buckets(counts: Counts) -> tuple[int, ...]:
    sparse = counts.get("buckets")
    return tuple(sparse.get(str(place), 0) for place in range(len(BOUNDS) + 1)) if sparse else ()

"""What Envoy counts, under the names of the gateway's own metrics.

Envoy's counts begin at 0 with each process; they are taken as what has come since they were last read, so that sums
never fall, whichever process ends. What Envoy has no count for stays at 0: hedges, caches, filters.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, cast

from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing import Snapshot
from toska_common.envoy.failovers import stands_for
from toska_common.envoy.replies import PROBLEM_ROUTE
from toska_common.envoy.telling import DURATION, PREFIX, RECEIVED, REQUESTS, SENT, WATCHED

from toska_gateway.envoy.exposition_text import Sample, read_samples
from toska_gateway.envoy.process import EnvoyProcess
from toska_gateway.envoy.watched import watched
from toska_gateway.gauges import Gauges
from toska_gateway.totals import Counts, Totals
from toska_gateway.worker.stats import BOUNDS, COUNTERS

NO_ROUTE: Final = "(none)"
_BY_CLUSTER: Final = {
    "upstream_rq_total": ("attempts", ""),
    "upstream_rq_rx_reset": ("failures", "reset"),
    "upstream_rq_timeout": ("failures", "timeout"),
    "upstream_rq_per_try_timeout": ("failures", "timeout"),
    "upstream_cx_connect_timeout": ("unmade", "timeout"),
    "upstream_cx_connect_fail": ("unmade", "refused"),
    "upstream_cx_total": ("made", ""),
    "outlier_detection_ejections_enforced_total": ("ejections", ""),
}
_COUNTERS: Final = {
    "envoy_http_downstream_cx_total": "accepted",
    "envoy_connection_limit_limited_connections": "refused",
    "envoy_listener_ssl_handshake": "handshakes",
    "envoy_listener_ssl_connection_error": "handshake_failures",
    "envoy_http_local_rate_limiter_http_local_rate_limit_rate_limited": "rate_limited",
    "envoy_rate_limit_http_local_rate_limit_rate_limited": "rate_limited",
    "envoy_http_fault_aborts_injected": "faults",
    "envoy_cluster_upstream_rq_total": "attempts",
    "envoy_cluster_upstream_rq_retry": "retries",
    "envoy_cluster_upstream_rq_retry_overflow": "budget_refusals",
    "envoy_cluster_upstream_rq_pending_overflow": "overloads",
    "envoy_cluster_upstream_cx_connect_fail": "connect_failures",
    "envoy_cluster_outlier_detection_ejections_enforced_total": "ejections",
}
_CLUSTER: Final = "envoy_cluster_"
_LABEL: Final = "envoy_cluster_name"
_PATTERN: Final = (
    rf"^({PREFIX}\.|http\.edge\.(downstream_cx_total|downstream_cx_active|fault)|listener\..*ssl\.(handshake|connection_error)$"
    r"|connection_limit\.|.*local_rate_limit|cluster\..*\.(upstream_rq_total|upstream_rq_[1-5]xx|upstream_rq_rx_reset"
    r"|upstream_rq_timeout|upstream_rq_per_try_timeout|upstream_rq_retry|upstream_rq_retry_overflow"
    r"|upstream_rq_pending_overflow|upstream_rq_pending_active|upstream_cx_active|upstream_cx_total"
    r"|upstream_cx_connect_timeout|upstream_cx_connect_fail|upstream_rq_time|upstream_cx_connect_ms"
    r"|outlier_detection\.ejections_enforced_total)$)"
)
_TO_SECONDS: Final = 1000.0


class Readings:
    """Sums over all Envoys, past and present."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._seen: dict[int, dict[tuple[str, ...], float]] = {}
        self._states: dict[int, Mapping[str, Any]] = {}

    async def take(self, process: EnvoyProcess, snapshot: Snapshot | None) -> dict[str, Any]:
        """Read one Envoy, and tell what it has counted since: like a worker's report, for whoever else counts.

        Raises:
            UpstreamUnavailable: It does not answer.
        """
        page = await process.admin.get(f"/stats/prometheus?filter={_quoted(_PATTERN)}")
        clusters = json.loads(await process.admin.get("/clusters?format=json"))
        samples = list(read_samples(page.decode()))
        pid = process.process.pid
        reading = _Reading(self._seen.get(pid, {}))
        self._seen[pid] = reading.seen
        report = reading.report(samples)
        self.totals.add(report)
        for name, counts in reading.of_clusters(samples):
            _add(self.totals.clusters.setdefault(name, {}), counts)
        state = _state(samples, clusters, snapshot)
        for name, endpoints in state["clusters"].items():
            for key, values in endpoints["endpoints"].items():
                known = self.totals.endpoints.setdefault(name, {}).setdefault(key, {})
                _add(known, reading.of_endpoint(name, key, values))
        self._states[pid] = state
        process.connections = state["connections"]
        process.requests = int(sum(one.value for one in samples if one.name == f"envoy_{PREFIX}_{REQUESTS}"))
        return report

    def keep(self, pids: Collection[int]) -> None:
        """All other processes have ended."""
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in pids}
        self._states = {pid: state for pid, state in self._states.items() if pid in pids}

    def hosts(self, pid: int) -> dict[str, Mapping[str, Mapping[str, int]]]:
        """How a process's endpoints are, by cluster and key."""
        clusters: Mapping[str, Any] = self._states.get(pid, {}).get("clusters", {})
        return {name: cluster["endpoints"] for name, cluster in clusters.items()}

    def gauges(self) -> Gauges:
        """How things stand."""
        return Gauges(_in_order(state) for state in self._states.values())


class _Reading:
    """One reading of one process, against the one before.

    Envoy forgets what a listener has counted when the last of it is gone, though its successor counts under the same
    names. So what is not there, or is less than it was, has begun at 0 again.

    Attributes:
        seen: What there is in this one.
    """

    def __init__(self, before: Mapping[tuple[str, ...], float]) -> None:
        self._before = before
        self.seen: dict[tuple[str, ...], float] = {}
        self._below: dict[tuple[str, ...], float] = {}

    def news(self, value: float, *key: str) -> float:
        """What has come since the reading before."""
        before, self.seen[key] = self._before.get(key, 0.0), value
        return value - before if value >= before else value

    def report(self, samples: list[Sample]) -> dict[str, Any]:
        """What has come by route, and as a whole, in the words of `toska_gateway.worker.stats`."""
        routes: dict[str, Counts] = {}
        counters = dict.fromkeys(COUNTERS, 0)
        for sample in samples:
            name = sample.name.removeprefix(f"envoy_{PREFIX}_")
            if name.startswith(WATCHED):
                continue
            if name != sample.name:
                self._add_to_route(routes, name, sample)
            elif sample.name in _COUNTERS:
                labels = sorted(sample.labels.items())
                counters[_COUNTERS[sample.name]] += int(self.news(sample.value, sample.name, str(labels)))
        for counts in routes.values():
            refused = counts.get("errors", {})
            counters["bad_requests"] += sum(n for code, n in refused.items() if code.startswith(("bad-", "header-")))
        return {"counters": counters, "routes": routes, "endpoints": {}, "watched": watched(samples, self.news)}

    def _add_to_route(self, routes: dict[str, Counts], name: str, sample: Sample) -> None:
        told = sample.labels.get("route", "")
        route = NO_ROUTE if told in ("", "-") or told.startswith(PROBLEM_ROUTE) else told
        counts = routes.setdefault(route, {})
        if name == REQUESTS:
            status, error = sample.labels.get("status", ""), sample.labels.get("error", "")
            news = int(self.news(sample.value, name, told, status, error))
            _add(counts, {"statuses": {status: news}})
            if error not in ("", "-"):
                _add(counts, {"errors": {error: news}})
        elif name in (RECEIVED, SENT):
            _add(counts, {name: int(self.news(sample.value, name, told))})
        elif name.startswith(DURATION):
            self._add_to_histogram(counts, name.removeprefix(DURATION), sample, (DURATION, told))

    def of_clusters(self, samples: list[Sample]) -> Iterator[tuple[str, Counts]]:
        """What has come by cluster."""
        for sample in samples:
            cluster = sample.labels.get(_LABEL)
            if cluster is None or not sample.name.startswith(_CLUSTER):
                continue
            name, counts = sample.name.removeprefix(_CLUSTER), Counts()
            if name in _BY_CLUSTER:
                kind, label = _BY_CLUSTER[name]
                news = int(self.news(sample.value, name, cluster, "cluster"))
                counts = {kind: {label: news} if label else news}
            elif name == "upstream_rq_xx":
                digit = sample.labels.get("envoy_response_code_class", "")
                counts = {"classes": {digit: int(self.news(sample.value, name, cluster, digit))}}
            elif name.startswith("upstream_rq_time_"):
                part = name.removeprefix("upstream_rq_time")
                self._add_to_histogram(counts, part, sample, ("upstream", cluster))
            elif name.startswith("upstream_cx_connect_ms_"):
                part = name.removeprefix("upstream_cx_connect_ms")
                self._add_to_histogram(counts, part, sample, ("connect", cluster), prefix="connect_")
            yield stands_for(cluster), counts

    def of_endpoint(self, cluster: str, key: str, values: Mapping[str, int]) -> Counts:
        """What has come by endpoint."""
        failed = int(self.news(values["unmade"], "unmade", cluster, key))
        return {
            "attempts": int(self.news(values["requests"], "requests", cluster, key)),
            "made": int(self.news(values["made"], "made", cluster, key)),
            **({"unmade": {"refused": failed}} if failed else {}),
        }

    def _add_to_histogram(
        self, counts: Counts, part: str, sample: Sample, key: tuple[str, ...], *, prefix: str = ""
    ) -> None:
        """Envoy's buckets are cumulative and have our bounds, in milliseconds."""
        if part == "_sum":
            _add(counts, {f"{prefix}seconds": self.news(sample.value, *key, "sum") / _TO_SECONDS})
        elif part == "_bucket":
            place = _place(sample.labels["le"])
            below = self._below.get(key, 0.0) if place else 0.0
            self._below[key] = sample.value
            news = int(self.news(sample.value - below, *key, str(place)))
            if news:
                _add(counts, {f"{prefix}buckets": {str(place): news}})


def _place(bound: str) -> int:
    if bound == "+Inf":
        return len(BOUNDS)
    seconds = float(bound) / _TO_SECONDS
    return min(range(len(BOUNDS)), key=lambda place: abs(BOUNDS[place] - seconds))


def _add(total: Counts, more: Counts) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, Any]", value)
            known: Counts = total.setdefault(name, {})
            for label, count in inside.items():
                known[label] = known.get(label, 0) + count
        else:
            total[name] = total.get(name, 0) + value


def _state(samples: list[Sample], told: Mapping[str, Any], snapshot: Snapshot | None) -> dict[str, Any]:
    """How things stand, by cluster and endpoint."""
    connections = sum(one.value for one in samples if one.name == "envoy_http_downstream_cx_active")
    found: dict[str, Any] = {}
    for one in told.get("cluster_statuses", ()):
        name = one["name"]
        if stands_for(name) != name:
            continue  # its endpoints are its members'
        keys = _keys(name, snapshot)
        endpoints = {keys.get(place, place): values for place, values in _hosts(one)}
        found[name] = {
            "connections": _gauge(samples, name, "upstream_cx_active"),
            "pending": _gauge(samples, name, "upstream_rq_pending_active"),
            "endpoints": endpoints,
        }
    return {"connections": int(connections), "clusters": found}


def _gauge(samples: list[Sample], cluster: str, name: str) -> int:
    wanted = f"{_CLUSTER}{name}"
    return int(sum(one.value for one in samples if one.name == wanted and one.labels.get(_LABEL) == cluster))


def _keys(cluster: str, snapshot: Snapshot | None) -> dict[str, str]:
    if snapshot is None or cluster not in snapshot.endpoints:
        return {}
    return {
        endpoint.address if endpoint.address.startswith(UNIX_PREFIX) else f"{endpoint.address}:{endpoint.port}": (
            endpoint.key
        )
        for endpoint in snapshot.endpoints[cluster].endpoints
    }


def _hosts(cluster: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    for host in cluster.get("host_statuses", ()):
        address = host["address"]
        if "pipe" in address:
            place = f"{UNIX_PREFIX}{address['pipe']['path']}"
        else:
            socket = address["socket_address"]
            place = f"{host.get('hostname') or socket['address']}:{socket['port_value']}"
        stats = {one["name"]: int(one.get("value", 0)) for one in host.get("stats", ())}
        health: Mapping[str, Any] = host.get("health_status", {})
        yield (
            place,
            {
                "active": stats.get("rq_active", 0),
                "requests": stats.get("rq_total", 0),
                "idle": max(0, stats.get("cx_active", 0) - stats.get("rq_active", 0)),
                "ejected": int(bool(health.get("failed_outlier_check"))),
                "unhealthy": int(bool(health.get("failed_active_health_check"))),
                "made": stats.get("cx_total", 0) - stats.get("cx_connect_fail", 0),
                "unmade": stats.get("cx_connect_fail", 0),
            },
        )


def _in_order(state: Mapping[str, Any]) -> dict[str, Any]:
    """As `Gauges` takes it."""
    clusters: dict[str, Any] = {}
    for name, one in state["clusters"].items():
        endpoints = {
            key: (values["active"], values["requests"], values["idle"], values["ejected"], values["unhealthy"])
            for key, values in one["endpoints"].items()
        }
        idle = sum(values["idle"] for values in one["endpoints"].values())
        clusters[name] = {"values": (one["connections"], idle, one["pending"], None), "endpoints": endpoints}
    return {"connections": state["connections"], "cache": (0, 0), "clusters": clusters}


def _quoted(pattern: str) -> str:
    from urllib.parse import quote

    return quote(pattern, safe="")

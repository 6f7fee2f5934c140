"""The workers' counters, summed, in Prometheus's text format.

Counts of workers that have ended are carried on, so that a counter never falls.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from toska_gateway.worker.stats import BUCKETS

_COUNTERS = {
    "accepted": "Connections accepted from clients",
    "refused": "Connections refused because of a connection limit",
    "handshakes": "TLS handshakes with clients that were completed",
    "handshake_failures": "Connections that ended, or took too long, before TLS or a PROXY header was through",
    "faults": "Requests aborted on purpose",
    "mirrored": "Copies of requests sent to shadow clusters",
    "mirror_failures": "Copies that came to nothing",
    "mirror_skipped": "Requests not copied: no room, no endpoint, or too long a body",
    "rate_limited": "Requests refused because their rate limit was used up",
    "bad_requests": "Requests refused as malformed or over a limit",
    "circuit_refusals": "Attempts that an open circuit did not let through",
    "attempts": "Requests sent to endpoints, repeats included",
    "retries": "Requests sent again to another endpoint",
    "connect_failures": "Connections to endpoints that could not be made",
    "ejections": "Endpoints taken out of rotation after failed connects",
}


class Totals:
    """Counters of all workers, past and present."""

    def __init__(self) -> None:
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._routes: dict[str, dict[str, Any]] = {}

    def add(self, report: Mapping[str, Any]) -> None:
        """Add one worker's counters."""
        stats = report.get("stats")
        if not stats:
            return
        for name in _COUNTERS:
            self._counters[name] += stats[name]
        for name, route in stats["routes"].items():
            total = self._routes.setdefault(name, {"statuses": {}, "buckets": [0] * (len(BUCKETS) + 1), "seconds": 0.0})
            for status, count in route["statuses"].items():
                total["statuses"][status] = total["statuses"].get(status, 0) + count
            total["buckets"] = [a + b for a, b in zip(total["buckets"], route["buckets"], strict=True)]
            total["seconds"] += route["seconds"]

    def copy(self) -> "Totals":
        """A copy that can be added to."""
        other = Totals()
        other._counters = dict(self._counters)
        other._routes = {name: {**route, "statuses": dict(route["statuses"])} for name, route in self._routes.items()}
        return other

    def lines(self) -> Iterator[str]:
        """The exposition's lines."""
        for name, text in _COUNTERS.items():
            metric = f"toska_gateway_{name}_total"
            yield from _header(metric, "counter", text)
            yield f"{metric} {self._counters[name]}"
        metric = "toska_gateway_requests_total"
        yield from _header(metric, "counter", "Requests by route and status; (none) found no route")
        for route, stats in sorted(self._routes.items()):
            for status, count in sorted(stats["statuses"].items()):
                yield f'{metric}{{route="{_escape(route)}",status="{status}"}} {count}'
        metric = "toska_gateway_request_duration_seconds"
        yield from _header(metric, "histogram", "From a request's head to the last byte of its response")
        for route, stats in sorted(self._routes.items()):
            label, total = _escape(route), 0
            for bound, count in zip((*BUCKETS, "+Inf"), stats["buckets"], strict=True):
                total += count
                yield f'{metric}_bucket{{route="{label}",le="{bound}"}} {total}'
            yield f'{metric}_count{{route="{label}"}} {total}'
            yield f'{metric}_sum{{route="{label}"}} {stats["seconds"]:.6f}'


def render(totals: Totals, reports: Iterable[Mapping[str, Any]], workers: int) -> str:
    """The whole exposition: `totals` of all workers, and gauges of the live ones."""
    lines = list(totals.lines())
    connections = 0
    active: dict[tuple[str, str], int] = {}
    requests: dict[tuple[str, str], int] = {}
    ejected: dict[tuple[str, str], int] = {}
    circuits: dict[str, int] = {}
    for report in reports:
        connections += report.get("connections", 0)
        for cluster, state in report.get("clusters", {}).items():
            if state["circuit"] is not None:
                circuits[cluster] = circuits.get(cluster, 0) + (state["circuit"] != "closed")
            for key, endpoint in state["endpoints"].items():
                labels = cluster, key
                active[labels] = active.get(labels, 0) + endpoint["active"]
                requests[labels] = requests.get(labels, 0) + endpoint["requests"]
                ejected[labels] = ejected.get(labels, 0) + int(endpoint["ejected"])
    lines += [*_header("toska_gateway_workers", "gauge", "Live worker processes"), f"toska_gateway_workers {workers}"]
    lines += _header("toska_gateway_connections", "gauge", "Open client connections")
    lines.append(f"toska_gateway_connections {connections}")
    metric = "toska_gateway_cluster_circuits_open"
    lines += _header(metric, "gauge", "Workers whose circuit to the cluster is open or half-open")
    lines += [f'{metric}{{cluster="{_escape(name)}"}} {value}' for name, value in sorted(circuits.items())]
    for name, text, values in (
        ("active_requests", "Requests in flight by endpoint", active),
        ("endpoint_requests", "Requests sent by endpoint, since its workers started", requests),
        ("ejected", "Workers that have the endpoint out of rotation", ejected),
    ):
        metric = f"toska_gateway_endpoint_{name.removeprefix('endpoint_')}"
        lines += _header(metric, "gauge", text)
        lines += [
            f'{metric}{{cluster="{_escape(cluster)}",endpoint="{_escape(key)}"}} {value}'
            for (cluster, key), value in sorted(values.items())
        ]
    return "\n".join(lines) + "\n"


def _header(metric: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

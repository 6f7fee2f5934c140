"""The data plane's series in Prometheus's text format, or as OpenMetrics with sampled traces as exemplars.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from toska_common.clock import now_utc
from toska_common.contracts.gateway import IssuerKeys

from toska_gateway.gauges import Gauges
from toska_gateway.totals import Counts, Totals
from toska_gateway.worker.stats import BOUNDS, BUCKETS, COUNTERS

OPENMETRICS: Final = "application/openmetrics-text"
_PLACES: Final = tuple(BOUNDS.index(bound) for bound in BUCKETS)
"""Where each bound that is shown stands among those that are counted by."""

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]


def render(
    totals: Totals, gauges: Gauges, workers: int, *, keys: Iterable[IssuerKeys] = (), openmetrics: bool = False
) -> str:
    """The whole page, without OpenMetrics' mark of the end."""
    page = _Page(openmetrics=openmetrics)
    for name, text in COUNTERS.items():
        page.counter(name, text, [((), totals.counters[name])])
    _add_routes(page, totals)
    page.gauge("workers", "Live worker processes", [((), workers)])
    page.gauge("connections", "Open client connections", [((), gauges.connections)])
    for name, text in Gauges.OF_CACHES.items():
        page.gauge(f"cache_{name}", text, [((), gauges.cache[name])])
    clusters = [((("cluster", name),), counts) for name, counts in sorted(totals.clusters.items())]
    endpoints = [
        ((("cluster", name), ("endpoint", key)), counts)
        for name, members in sorted(totals.endpoints.items())
        for key, counts in sorted(members.items())
    ]
    _add_attempts(page, "cluster", clusters)
    page.histogram("cluster_connect_duration_seconds", "Making a connection, TLS included", clusters, "connect_")
    _add_attempts(page, "endpoint", endpoints)
    _add_gauges(page, gauges)
    _add_keys(page, [((("source", one.source),), one) for one in keys])
    return page.text()


def _add_routes(page: "_Page", totals: Totals) -> None:
    routes = [((("route", name),), counts) for name, counts in sorted(totals.routes.items())]
    page.counter(
        "requests", "Requests by route and status; (none) found no route", _by_label(routes, "statuses", "status")
    )
    page.counter("errors", "Answers of the gateway's own by their code", _by_label(routes, "errors", "code"))
    page.counter("cache_requests", "Requests by what the route's cache did", _by_label(routes, "cache", "outcome"))
    faults = [
        ((*labels, ("filter", label.partition(" ")[0]), ("outcome", label.partition(" ")[2])), count)
        for labels, counts in routes
        for label, count in sorted(counts.get("filters", {}).items())
    ]
    page.counter("filter_faults", "Calls of filters that failed, took too long or were not made", faults)
    page.histogram("request_duration_seconds", "From a request's head to the last byte of its response", routes)
    page.counter("request_body_bytes", "Bytes of requests' bodies", _plain(routes, "received"))
    page.counter("response_body_bytes", "Bytes of responses' bodies", _plain(routes, "sent"))


def _add_attempts(page: "_Page", noun: str, items: list[tuple[Labels, Counts]]) -> None:
    page.counter(f"{noun}_attempts", "Requests sent, repeats included", _plain(items, "attempts"))
    answers = [
        ((*labels, ("class", f"{digit}xx")), count)
        for labels, counts in items
        for digit, count in sorted(counts.get("classes", {}).items())
    ]
    page.counter(f"{noun}_responses", "Responses by class of status", answers)
    page.counter(f"{noun}_failures", "Attempts that broke off", _by_label(items, "failures", "reason"))
    page.histogram(f"{noun}_response_duration_seconds", "From sending a request to the head of its response", items)
    page.counter(f"{noun}_connections_made", "Connections that were made", _plain(items, "made"))
    failed = _by_label(items, "unmade", "reason")
    page.counter(f"{noun}_connect_failures", "Connections that could not be made", failed)
    page.counter(f"{noun}_ejections", "Times that endpoints were taken out of rotation", _plain(items, "ejections"))


def _add_gauges(page: "_Page", gauges: Gauges) -> None:
    for name, text in Gauges.OF_CLUSTERS.items():
        samples = [((("cluster", cluster),), values[name]) for cluster, values in sorted(gauges.clusters.items())]
        page.gauge(f"cluster_{name}", text, [(labels, value) for labels, value in samples if value is not None])
    for name, text in Gauges.OF_ENDPOINTS.items():
        samples = [
            ((("cluster", cluster), ("endpoint", key)), values[name])
            for (cluster, key), values in sorted(gauges.endpoints.items())
        ]
        page.gauge(f"endpoint_{name}", text, samples)


def _add_keys(page: "_Page", sources: list[tuple[Labels, IssuerKeys]]) -> None:
    if not sources:
        return
    page.gauge("issuer_keys", "Keys that tokens are verified with", [(labels, one.keys) for labels, one in sources])
    stale = [(labels, int(bool(one.problem))) for labels, one in sources]
    page.gauge("issuer_keys_stale", "Whether the source could not be read when that was last tried", stale)
    now = now_utc()
    ages = [(labels, round((now - one.read_at).total_seconds())) for labels, one in sources if one.read_at is not None]
    page.gauge("issuer_keys_age_seconds", "Since the keys were last seen at their source", ages)


def _plain(items: list[tuple[Labels, Counts]], name: str) -> Samples:
    return [(labels, counts.get(name, 0)) for labels, counts in items]


def _by_label(items: list[tuple[Labels, Counts]], name: str, label: str) -> Samples:
    return [
        ((*labels, (label, value)), count)
        for labels, counts in items
        for value, count in sorted(counts.get(name, {}).items())
    ]


class _Page:
    """Families of series, one after the other."""

    def __init__(self, *, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def counter(self, name: str, text: str, samples: Samples) -> None:
        # OpenMetrics names the family without what its samples end with.
        self._header(name if self._openmetrics else f"{name}_total", "counter", text)
        self._lines += [f"toska_gateway_{name}_total{_braced(labels)} {value}" for labels, value in samples]

    def gauge(self, name: str, text: str, samples: Samples) -> None:
        self._header(name, "gauge", text)
        self._lines += [f"toska_gateway_{name}{_braced(labels)} {value}" for labels, value in samples]

    def histogram(self, name: str, text: str, items: Iterable[tuple[Labels, Counts]], prefix: str = "") -> None:
        self._header(name, "histogram", text)
        for labels, counts in items:
            buckets: Mapping[str, int] = counts.get(f"{prefix}buckets", {})
            if not buckets:
                continue
            exemplars = self._exemplars(counts) if self._openmetrics and not prefix else {}
            metric, total = f"toska_gateway_{name}", 0
            for place, (bound, count) in enumerate(_shown(buckets)):
                total = count
                line = f"{metric}_bucket{_braced((*labels, ('le', bound)))} {count}"
                self._lines.append(line + exemplars.get(place, ""))
            self._lines.append(f"{metric}_count{_braced(labels)} {total}")
            self._lines.append(f"{metric}_sum{_braced(labels)} {counts[f'{prefix}seconds']:.6f}")

    def _header(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP toska_gateway_{name} {text}", f"# TYPE toska_gateway_{name} {kind}"]

    def _exemplars(self, counts: Counts) -> dict[int, str]:
        newest: dict[int, tuple[float, str]] = {}
        exemplars: Mapping[str, Any] = counts.get("exemplars", {})
        for trace_id, seconds, at in exemplars.values():
            place = bisect_left(BUCKETS, seconds)
            if place not in newest or newest[place][0] < at:
                newest[place] = at, f' # {{trace_id="{trace_id}"}} {seconds:.6f} {at:.3f}'
        return {place: text for place, (_, text) in newest.items()}


def _shown(buckets: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Cumulative counts by the bounds that are shown."""
    counts = sorted((int(place), count) for place, count in buckets.items())
    total, at = 0, 0
    for bound, last in zip(BUCKETS, _PLACES, strict=True):
        while at < len(counts) and counts[at][0] <= last:
            total += counts[at][1]
            at += 1
        yield str(bound), total
    yield "+Inf", sum(count for _, count in counts)


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

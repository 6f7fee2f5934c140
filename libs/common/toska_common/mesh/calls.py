"""What is counted of the calls to other services."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from toska_common.metrics import BUCKETS_S


class CallMetrics:
    """Calls by upstream and outcome: a status, or `error` if there was no answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "toska_client_call_duration_seconds",
            "Time from the start of a call, retries included, to the head of its response",
            ("upstream", "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._retries = Counter("toska_client_retries", "Further attempts of calls", ("upstream",), registry=registry)

    def observe(self, upstream: str, outcome: str, seconds: float) -> None:
        """A call ended."""
        self._duration.labels(upstream, outcome).observe(seconds)

    def count_retry(self, upstream: str) -> None:
        """A call is tried again."""
        self._retries.labels(upstream).inc()

"""What a bus tells Prometheus. Labels are bounded: declared topics, handlers and outcomes; never a key or an id."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OTHER = "(other)"


class Outcome(StrEnum):
    """What became of a delivery."""

    HANDLED = "handled"
    RETRIED = "retried"
    REJECTED = "rejected"
    SKIPPED = "skipped"


class EventMetrics:
    """The series of one bus; without a registry they are counted for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._topics: set[str] = set()
        self._published = Counter("toska_events_published", "Events published", ["topic"], registry=registry)
        self._failed = Counter("toska_events_publish_failures", "Events that could not be published", registry=registry)
        self._dropped = Counter("toska_events_dropped", "Events offered while there was no room", registry=registry)
        self._handled = Counter(
            "toska_events_handled", "Deliveries, by what became of them", ["handler", "outcome"], registry=registry
        )
        self._duration = Histogram(
            "toska_events_handling_seconds", "Time in handlers", ["handler"], buckets=BUCKETS_S, registry=registry
        )
        self._lateness = Histogram(
            "toska_events_lateness_seconds",
            "From when an event says that it happened to the first time that a handler has it",
            ["handler"],
            buckets=(*BUCKETS_S, 60.0, 300.0, 3600.0),
            registry=registry,
        )
        self._in_hand = Gauge("toska_events_in_hand", "Events in handlers now", ["handler"], registry=registry)

    def know(self, topic: str) -> None:
        """Count a topic under its own name."""
        self._topics.add(topic)

    def published(self, topic: str) -> None:
        """One was confirmed."""
        self._published.labels(topic if topic in self._topics else OTHER).inc()

    def failed(self, count: int) -> None:
        """Some were not."""
        self._failed.inc(count)

    def dropped(self) -> None:
        """One that was offered found no room."""
        self._dropped.inc()

    def began(self, handler: str, lateness_s: float, attempt: int) -> None:
        """A handler was handed an event."""
        self._in_hand.labels(handler).inc()
        if attempt == 1:
            self._lateness.labels(handler).observe(max(0.0, lateness_s))

    def ended(self, handler: str, outcome: Outcome, seconds: float) -> None:
        """It is done with it."""
        self._in_hand.labels(handler).dec()
        self._handled.labels(handler, outcome).inc()
        self._duration.labels(handler).observe(seconds)

    def skipped(self, handler: str) -> None:
        """A delivery that its filter did not want."""
        self._handled.labels(handler, Outcome.SKIPPED).inc()

"""The events service's own series, read from the log when they are scraped."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from toska_events.hosting import HostedLog


class EventsCollector:
    """Registers itself; the counts live where they belong. Without a log of its own the service has none."""

    def __init__(self, registry: CollectorRegistry, find_log: Callable[[], HostedLog | None]) -> None:
        self._find_log = find_log
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The series as they are now."""
        hosted = self._find_log()
        if hosted is None:
            return
        broker = hosted.broker
        groups = list(broker.groups.values())
        yield CounterMetricFamily("toska_events_stored", "Events stored since the start", broker.published)
        yield CounterMetricFamily("toska_events_ephemeral", "Events that were kept for nobody", broker.ephemeral)
        yield CounterMetricFamily("toska_events_commits", "Commits that stored them", broker.writer.commits)
        yield GaugeMetricFamily("toska_events_waiting_bytes", "Not committed yet", broker.writer.waiting_bytes)
        yield GaugeMetricFamily("toska_events_clients", "Connections to the socket", len(hosted.served.connections))
        yield CounterMetricFamily("toska_events_clients_refused", "Connections cut off", hosted.served.refused)
        yield GaugeMetricFamily("toska_events_groups", "Groups with a name", len(groups))
        yield GaugeMetricFamily(
            "toska_events_members", "Live subscriptions", sum(len(group.members) for group in broker.all_groups())
        )
        yield GaugeMetricFamily(
            "toska_events_unsettled", "Given to a member and not settled", sum(len(group.given) for group in groups)
        )
        yield GaugeMetricFamily(
            "toska_events_saving_failed",
            "1 while there is no room to store what groups settle",
            int(broker.saver.failing),
        )

"""What the registry tells Prometheus, read from its own numbers when it is scraped: a renewal pays nothing for it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from toska_discovery.consul.app import ConsulApi
from toska_discovery.dns.server import DnsCounts
from toska_discovery.vacancies.watcher import VacancyCounts


class DiscoveryCollector(Collector):
    """Metrics of the embedded registry behind `api`; none while it is not open."""

    def __init__(self, api: ConsulApi, registry: CollectorRegistry) -> None:
        self._api = api
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        if self._api.endpoints is None:
            return
        registry = self._api.endpoints.registry
        state = registry.state
        instances = GaugeMetricFamily("toska_discovery_instances", "Instances listed, by health", labels=["health"])
        for health, count in state.by_health.items():
            instances.add_metric([health.value], count)
        yield instances
        yield GaugeMetricFamily("toska_discovery_services", "Services with an instance", len(state.services))
        yield GaugeMetricFamily("toska_discovery_nodes", "Nodes, the registry's own included", len(state.nodes))
        yield GaugeMetricFamily("toska_discovery_keys", "Keys stored", len(state.keys))
        yield GaugeMetricFamily("toska_discovery_locks", "Keys locked", state.keys.held)
        yield GaugeMetricFamily("toska_discovery_sessions", "Sessions", len(state.coordination.sessions))
        ended = CounterMetricFamily(
            "toska_discovery_sessions_ended", "Sessions that ended, by reason", labels=["event"]
        )
        for reason, count in registry.counts.sessions_ended.items():
            ended.add_metric([reason.value], count)
        yield ended
        yield GaugeMetricFamily("toska_discovery_index", "Index of the last change", state.index)
        yield GaugeMetricFamily("toska_discovery_watchers", "Blocked queries", registry.watchers.blocked)
        yield CounterMetricFamily("toska_discovery_renewals", "Reports on checks", registry.counts.renewals)
        yield GaugeMetricFamily("toska_discovery_probed_checks", "Checks that are probed", len(state.probes))
        yield CounterMetricFamily("toska_discovery_probes", "Verdicts of probes", registry.counts.probes)
        events = CounterMetricFamily("toska_discovery_events", "What became of instances", labels=["event"])
        for happening, count in registry.counts.happenings.items():
            events.add_metric([happening.value], count)
        yield events
        requests = CounterMetricFamily(
            "toska_discovery_consul_requests", "Requests of the Consul API", labels=["endpoint", "status"]
        )
        for (endpoint, status), count in sorted(self._api.requests.items()):
            requests.add_metric([endpoint, str(status)], count)
        yield requests
        yield CounterMetricFamily("toska_discovery_store_commits", "Group commits", registry.store.commits)
        yield GaugeMetricFamily(
            "toska_discovery_store_failing",
            "1 while the state file cannot be written",
            registry.store.failure is not None,
        )


class DnsCollector(Collector):
    """What became of packets to the DNS server."""

    def __init__(self, counts: DnsCounts, registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "toska_discovery_dns_answers", "Answers of the DNS server", labels=["transport", "rcode"]
        )
        for labels, count in sorted(self._counts.answers.items()):
            answers.add_metric(labels, count)
        yield answers


class VacancyCollector(Collector):
    """Whose end is noticed by a port that closes, before a lease lapses."""

    def __init__(self, counts: VacancyCounts, registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "toska_discovery_watched_ports", "Instances whose port was seen open", self._counts.watched
        )
        yield CounterMetricFamily(
            "toska_discovery_port_looks", "Lists of this machine's open ports compared", self._counts.looks
        )

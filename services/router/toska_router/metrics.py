"""The router's own series, read from its parts when they are scraped."""

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from toska_common.contracts.rollouts import Phase

from toska_router.parts import Parts


class RouterCollector:
    """Registers itself; the counts live where they belong."""

    def __init__(self, registry: CollectorRegistry, parts: Parts) -> None:
        self._parts = parts
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The series as they are now."""
        table, publisher = self._parts.composer.table, self._parts.publisher
        current = [gateway for gateway in self._parts.gateways.list_statuses() if gateway.up_to_date]
        yield GaugeMetricFamily("toska_router_routes", "Routes of the table", len(table.routes))
        yield GaugeMetricFamily("toska_router_clusters", "Clusters of the table", len(table.clusters))
        yield GaugeMetricFamily("toska_router_endpoints", "Endpoints of all clusters", publisher.endpoint_count)
        yield GaugeMetricFamily("toska_router_gateways", "Gateways that asked lately", len(self._parts.gateways))
        yield GaugeMetricFamily("toska_router_gateways_current", "Gateways with the newest snapshot", len(current))
        yield GaugeMetricFamily("toska_router_polls_waiting", "Polls that wait for news", publisher.waiting)
        yield GaugeMetricFamily(
            "toska_router_registry_connected",
            "1 while the registry answers",
            int(self._parts.follower.status.connected),
        )
        yield self._rollouts()
        running = [one for one in self._parts.runs.runs.experiments.values() if one.status.phase == "running"]
        yield GaugeMetricFamily("toska_router_experiments_running", "Chaos experiments that hit requests", len(running))
        yield CounterMetricFamily(
            "toska_router_snapshots", "Snapshots that differed from the one before", publisher.published
        )

    def _rollouts(self) -> Metric:
        family = GaugeMetricFamily("toska_router_rollouts", "Rollouts by phase", labels=["phase"])
        phases = [one.phase for one in self._parts.runs.runs.rollouts.values()]
        for phase in get_args(Phase):
            family.add_metric([phase], phases.count(phase))
        return family

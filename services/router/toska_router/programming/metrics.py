"""Series of the xDS server, by type of resource: only types that the API knows become labels."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from toska_router.programming.loads import LoadBook
from toska_router.xds.server import XdsServer
from toska_router.xds.types import MAKE_ORDER, short_name


class XdsCollector:
    """Registers itself; the counts live in the server."""

    def __init__(self, registry: CollectorRegistry, server: XdsServer, loads: LoadBook) -> None:
        self._server = server
        self._loads = loads
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The series as they are now."""
        clients = self._server.list_clients()
        late = sum(not all(each.up_to_date for each in client.types) for client in clients)
        refusing = sum(any(each.refusals for each in client.types) for client in clients)
        yield GaugeMetricFamily("toska_router_xds_streams", "Streams of xDS that are open", len(clients))
        yield GaugeMetricFamily("toska_router_xds_streams_behind", "Those that have not answered everything", late)
        yield GaugeMetricFamily("toska_router_xds_streams_refusing", "Those that refuse something now", refusing)
        tally = self._server.tally
        yield _by_type("responses", "Responses sent", tally.sent)
        yield _by_type("acknowledgements", "Responses that clients took over", tally.accepted)
        yield _by_type("refusals", "Responses that clients refused", tally.refused)
        sums = self._loads.sums.items()
        yield _by_cluster("requests", "Requests that clients report", ((name, one.requests) for name, one in sums))
        yield _by_cluster("failures", "Those that failed", ((name, one.failures) for name, one in sums))


def _by_cluster(noun: str, documentation: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"toska_router_xds_{noun}", documentation, labels=["cluster"])
    for cluster, count in counts:
        family.add_metric([cluster], count)
    return family


def _by_type(noun: str, documentation: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(f"toska_router_xds_{noun}", documentation, labels=["type"])
    for type_url in MAKE_ORDER:
        family.add_metric([short_name(type_url)], counts[type_url])
    return family

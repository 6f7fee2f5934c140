"""Load reports (LRS): clients tell every so often what they have sent where, of all clusters that the server programs.

Envoy tells of each endpoint, gRPC's clients of each locality. Numbers are those since the report before, except for
what is in flight.

Sources: `envoy.service.load_stats.v3`; gRPC proposal A27, §Load Reporting.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toska_common.envoy_api import message_class

from toska_router.xds.exchange import Node
from toska_router.xds.wire import node_of

SERVICE, METHOD = "envoy.service.load_stats.v3.LoadReportingService", "StreamLoadStats"
_REQUEST, _RESPONSE = "envoy.service.load_stats.v3.LoadStatsRequest", "envoy.service.load_stats.v3.LoadStatsResponse"


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """Requests to one address."""

    address: str
    port: int
    requests: int
    failures: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ClusterLoad:
    """Requests to one cluster; `dropped` were never sent, and `endpoints` is empty of clients that do not tell."""

    cluster: str
    requests: int
    failures: int
    dropped: int = 0
    endpoints: tuple[EndpointLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadReports:
    """Whether and how clients report.

    Attributes:
        take: Called with who reports, where it calls from, and what it has sent.
        interval_s: How often they report.
    """

    take: Callable[[Node, str, Sequence[ClusterLoad]], None]
    interval_s: float


def read_load_request(data: bytes) -> tuple[Node | None, list[ClusterLoad]]:
    """A `LoadStatsRequest`: who it is of, if it says so; `google.protobuf.message.DecodeError` if it is none."""
    message = message_class(_REQUEST).FromString(data)
    return node_of(message), [_cluster(stats) for stats in message.cluster_stats]


def write_load_response(interval_s: float) -> bytes:
    """A `LoadStatsResponse` that asks for everything."""
    response = message_class(_RESPONSE)(send_all_clusters=True, report_endpoint_granularity=True)
    response.load_reporting_interval.FromMilliseconds(round(interval_s * 1000))
    return response.SerializeToString()


def _cluster(stats: Any) -> ClusterLoad:
    localities = stats.upstream_locality_stats
    failures = sum(each.total_error_requests for each in localities)
    return ClusterLoad(
        cluster=stats.cluster_name,
        requests=failures + sum(each.total_successful_requests for each in localities),
        failures=failures,
        dropped=stats.total_dropped_requests,
        endpoints=tuple(load for each in localities for load in _endpoints(each.upstream_endpoint_stats)),
    )


def _endpoints(found: Any) -> Iterator[EndpointLoad]:
    for each in found:
        place = each.address.socket_address
        if place.address:
            requests = each.total_successful_requests + each.total_error_requests
            yield EndpointLoad(
                place.address, place.port_value, requests, each.total_error_requests, each.total_requests_in_progress
            )

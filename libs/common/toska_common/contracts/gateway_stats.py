"""What a gateway has counted, for whoever takes it twice and looks at the difference (`toska top`).

All counts are sums over the workers since the gateway started. Histograms are counts by bucket, not cumulative, one
more than `GatewayStats.bounds`; of nothing they are empty.
"""

from collections.abc import Mapping

from pydantic import Field

from toska_common.contracts import Contract


class RouteCounts(Contract):
    """Requests of one route."""

    name: str
    statuses: Mapping[str, int] = Field(default_factory=dict[str, int])
    errors: Mapping[str, int] = Field(default_factory=dict[str, int], description="The gateway's own answers by code")
    received_bytes: int = Field(default=0, description="Of requests' bodies")
    sent_bytes: int = Field(default=0, description="Of responses' bodies")
    seconds: float = Field(default=0.0, description="From heads of requests to last bytes of responses, in all")
    buckets: tuple[int, ...] = ()


class AttemptCounts(Contract):
    """Requests sent to an endpoint, or to those of a cluster; `active` to `ejected` tell how it is at the moment."""

    attempts: int = 0
    classes: Mapping[str, int] = Field(default_factory=dict[str, int], description="Responses by first digit of status")
    failures: Mapping[str, int] = Field(default_factory=dict[str, int], description="Attempts that broke off")
    connect_failures: Mapping[str, int] = Field(default_factory=dict[str, int])
    connections_made: int = 0
    ejections: int = 0
    seconds: float = Field(default=0.0, description="From sending requests to heads of responses, in all")
    buckets: tuple[int, ...] = ()
    active: int = Field(default=0, description="Requests in flight")
    idle: int = Field(default=0, description="Connections that no request uses")


class EndpointCounts(AttemptCounts):
    """One endpoint."""

    key: str
    ejected: int = Field(default=0, description="Workers that have it out of rotation")


class ClusterCounts(AttemptCounts):
    """One cluster."""

    name: str
    connections: int = 0
    pending: int = Field(default=0, description="Requests that wait for a connection")
    circuits_open: int | None = Field(default=None, description="Workers whose circuit is not closed, if it has one")
    endpoints: tuple[EndpointCounts, ...] = ()


class GatewayStats(Contract):
    """Everything, at one moment."""

    instance: str = Field(description="Another one after a restart, with which all counts begin at 0")
    at_seconds: float = Field(description="On a clock of the gateway's own, for differences")
    workers: int
    connections: int
    counters: Mapping[str, int] = Field(default_factory=dict[str, int], description="Those of the gateway as a whole")
    bounds: tuple[float, ...] = Field(description="Upper bounds of all histograms, in seconds")
    routes: tuple[RouteCounts, ...] = ()
    clusters: tuple[ClusterCounts, ...] = ()

"""Equivalent endpoints, how one of them is chosen, and what is done about those that fail."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import EndpointAddress, ResourceName, ServiceName, is_unix
from toska_common.contracts.routing.health_check import HealthCheck
from toska_common.contracts.routing.words import CookieName, HeaderName
from toska_common.contracts.tls import ClusterTls
from toska_common.units import Duration


class Endpoint(Document):
    """One address of a cluster. A router adds an `id`; by hand it may be left out."""

    id: str = ""
    address: EndpointAddress = Field(description="A name, an IP address, or unix:/path of a Unix socket")
    port: int = Field(
        default=0, ge=0, le=65535, validate_default=True, description="Not for a Unix socket, which has none"
    )
    weight: int = Field(default=1, ge=1, le=65535)
    zone: str = Field(default="", max_length=64, description="Where it runs, for zone preference")

    @field_validator("port")
    @classmethod
    def _port_where_there_is_one(cls, value: int, info: ValidationInfo) -> int:
        address = info.data.get("address")  # absent if it is wrong itself
        if address is not None and is_unix(address) == bool(value):
            raise ValueError("a Unix socket has no port" if value else "give the port, from 1 to 65535")
        return value

    @property
    def key(self) -> str:
        """What tells this endpoint from the others of its cluster."""
        return self.id or (self.address if is_unix(self.address) else f"{self.address}:{self.port}")


class ConnectionLimits(Document):
    """Bounds of what one gateway worker holds towards a cluster."""

    max_connections: int = Field(default=1024, ge=1)
    max_pending: int = Field(default=1024, ge=0, description="Requests that wait for a connection")
    max_requests: int = Field(default=0, ge=0, description="Requests in flight, with those that wait; 0 is unbounded")
    pending_timeout: Duration = Field(default=timedelta(seconds=5), description="How long a request waits for one")

    @field_validator("pending_timeout")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta():
            raise ValueError("is longer than 0s")
        return value


class Breaker(Document):
    """When a cluster that fails is given time to recover; each gateway worker judges by what it sees itself."""

    failure_ratio: float = Field(default=0.5, gt=0, le=1, description="Share of failed requests that opens the circuit")
    min_requests: int = Field(default=20, ge=1, description="With fewer in the window nothing is decided")
    window: Duration = timedelta(seconds=10)
    cooldown: Duration = Field(
        default=timedelta(seconds=5), description="How long it stays open before the first probe"
    )
    half_open_requests: int = Field(
        default=3, ge=1, description="Probes that may go at once, and must succeed to close it"
    )

    @field_validator("window", "cooldown")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta():
            raise ValueError("is longer than 0s")
        return value


class Outlier(Document):
    """Passive ejection: an endpoint that fails leaves the rotation for a while, longer each time.

    Each gateway worker judges by what it sees itself.
    """

    consecutive_failures: int = Field(default=1, ge=1, description="Failed connections in a row")
    consecutive_gateway_errors: int = Field(
        default=0, ge=0, description="Answers of 502, 503 or 504, resets and timeouts in a row; 0 ejects for none"
    )
    consecutive_5xx: int = Field(
        default=0, ge=0, description="Answers of 500 to 599, resets and timeouts in a row; 0 ejects for none"
    )
    base_ejection: Duration = timedelta(seconds=5)
    max_ejection: Duration = timedelta(seconds=60)
    max_ejected_percent: float = Field(
        default=100.0, ge=0, le=100, description="So much of the cluster is ejected at most, and one endpoint always"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not timedelta() < self.base_ejection <= self.max_ejection:
            raise ValueError("base_ejection is longer than 0s and at most max_ejection")
        return self


class HashKey(Document):
    """What a request's endpoint follows from: one of these. A request without it goes anywhere."""

    header: HeaderName | None = None
    cookie: CookieName | None = None
    query: str | None = Field(default=None, min_length=1, max_length=256)
    path: bool = False
    client_ip: bool = False

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (
            sum((self.header is not None, self.cookie is not None, self.query is not None, self.path, self.client_ip))
            != 1
        ):
            raise ValueError("give one of header, cookie, query, path: true and client_ip: true")
        return self


class AffinityCookie(Document):
    """Clients come back to the endpoint that first served them, as long as it is there and well."""

    cookie: CookieName = "toska_affinity"
    ttl: Duration = Field(default=timedelta(), description="Life of the cookie; 0s ends it with the browser's session")
    secure: bool = Field(default=False, description="Sent over TLS only")


class Failover(Document):
    """Other clusters that take over what a cluster cannot carry, in this order.

    A cluster carries everything while `below_percent` of its endpoints, and `min_endpoints` of them, are well, and with
    fewer of them in proportion less; the next one takes the rest, as far as it can. A cluster whose circuit is open
    carries nothing. What the others would fail over to themselves is not asked: this list is all.
    """

    to: tuple[ResourceName, ...] = Field(min_length=1, max_length=8, description="One name or several")
    below_percent: float = Field(default=70.0, gt=0, le=100, description="With fewer endpoints well it shares")
    min_endpoints: int = Field(default=1, ge=1, le=100_000, description="With fewer of them well it shares too")

    @field_validator("to", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("to")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each cluster stands there once")
        return value


Balancer = Literal[
    "round_robin", "weighted_round_robin", "random", "least_request", "peak_ewma", "ip_hash", "ring_hash", "maglev"
]
"""How an endpoint is chosen; all go by the endpoints' weights, so round_robin and weighted_round_robin are the same."""


class Cluster(Document):
    """Equivalent endpoints: those of a `service` in the registry, or a fixed list."""

    service: ServiceName | None = None
    endpoints: tuple[Endpoint, ...] = ()
    balancer: Balancer = "least_request"
    hash_key: HashKey | None = Field(default=None, description="For ring_hash and maglev")
    affinity: AffinityCookie | None = None
    slow_start: Duration = Field(default=timedelta(), description="How long a newcomer takes to its whole weight")
    panic_percent: float = Field(
        default=0.0, ge=0, le=100, description="With fewer healthy endpoints than this, all are tried; 0: with none"
    )
    zone: str = Field(
        default="",
        max_length=64,
        description="Endpoints of this zone are preferred while they suffice; local: of each gateway's own zone",
    )
    zone_min_endpoints: int = Field(
        default=1, ge=1, le=100_000, description="With fewer of them well the other zones take a part"
    )
    failover: Failover | None = Field(default=None, description="Who takes over while too few endpoints are well")
    limits: ConnectionLimits = ConnectionLimits()
    breaker: Breaker | None = None
    outlier: Outlier = Outlier()
    health_check: HealthCheck | None = None
    keep_alive: Duration = Field(
        default=timedelta(seconds=30), description="How long an idle upstream connection is kept"
    )
    tls: ClusterTls | None = Field(default=None, description="Speak TLS with the endpoints; {} verifies as browsers do")
    protocol: Literal["http1", "http2"] = Field(
        default="http1", description="http2 for gRPC; needs Envoy (`--engine envoy`)"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.service is None) == (not self.endpoints):
            raise ValueError("give either service or endpoints")
        keys = [endpoint.key for endpoint in self.endpoints]
        if len(keys) != len(set(keys)):
            raise ValueError("an endpoint is listed twice")
        return self

    @model_validator(mode="after")
    def _zone_where_counted(self) -> Self:
        if self.zone_min_endpoints != 1 and not self.zone:
            raise ValueError("zone_min_endpoints goes with zone")
        return self

    @model_validator(mode="after")
    def _key_where_needed(self) -> Self:
        by_key = self.balancer in ("ring_hash", "maglev")
        if by_key and self.hash_key is None:
            raise ValueError(f"{self.balancer} needs hash_key: what requests are told apart by")
        if self.hash_key is not None and not by_key:
            raise ValueError(f"hash_key is for ring_hash and maglev; {self.balancer} does not go by a key")
        return self

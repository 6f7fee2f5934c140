"""The words of routing: what operators write (a file, or the router's API) and what gateways are given.

Every name is part of the contract and may only be joined by others. What a gateway cannot do is not in here, so
asking for it is an error and never silently ignored.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import UNIX_PREFIX, EndpointAddress, ResourceName, ServiceName, is_unix
from toska_common.contracts.tls import ClusterTls, ServerTls
from toska_common.units import Duration, Size

HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$", to_lower=True)]
HeaderValue = Annotated[
    str,
    StringConstraints(
        pattern=r"^[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$|^$", max_length=8192
    ),
]
CookieName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,20}$")]

_FRAMING = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded",
        "x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "x-request-id", "traceparent",
    }
)  # fmt: skip


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a path starts with /")
    if re.search(r"[\x00-\x20\x7f?#%\\]|//|/\.{1,2}(/|$)", value):
        raise ValueError("write the decoded, normal form of the path: no %, ?, #, \\, //, /./ or /../")
    return value


def _exact_path(value: str) -> str:
    return value if value == "*" else _path(value)


Path = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_path)]
ExactPath = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_exact_path)]


def _match_host(value: str) -> str:
    name = value[2:] if value.startswith("*.") else value
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError("a host is lower-case, without a port; *.example.com stands for every name below it")
    return value


MatchHost = Annotated[str, AfterValidator(_match_host)]


class Match(Document):
    """Which requests a route takes. All that is given must hold; a longer, more exact match goes first."""

    host: MatchHost | None = None
    path: ExactPath | None = Field(
        default=None, description="Exactly this path; * takes an OPTIONS of the server as a whole (RFC 9112 §3.2.4)"
    )
    path_prefix: Path | None = Field(
        default=None, description="By segment: /orders takes /orders and /orders/1, not /ordersx"
    )
    except_prefixes: tuple[Path, ...] = Field(default=(), description="Paths below that the route does not take")
    methods: tuple[Method, ...] = ()
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    query: Mapping[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if (self.path is None) == (self.path_prefix is None):
            raise ValueError("give either path or path_prefix")
        return self


class WeightedCluster(Document):
    """One part of a split."""

    cluster: ResourceName
    weight: int = Field(default=1, ge=0, le=1_000_000)


class HeaderEdits(Document):
    """Changes to a message's headers: `remove`, then `set` (replaces), then `add`."""

    set: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    add: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    remove: tuple[HeaderName, ...] = ()

    @model_validator(mode="after")
    def _leaves_framing_alone(self) -> Self:
        wrong = sorted(_FRAMING.intersection((*self.set, *self.add, *self.remove)))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is the gateway's own and cannot be changed")
        return self


class HeaderRules(Document):
    """Header changes towards the upstream and towards the caller."""

    request: HeaderEdits = HeaderEdits()
    response: HeaderEdits = HeaderEdits()


class BodyLimit(Document):
    """Bounds of the request body."""

    max_bytes: Size = Field(default=0, ge=0, description="0 is unbounded")


class RetryPolicy(Document):
    """How often a request is tried: `attempts` counts the first try too.

    Only idempotent requests whose body is absent or still buffered are repeated, on another endpoint, before the first
    byte of a response.
    """

    attempts: int = Field(default=2, ge=1, le=5)
    retry_on: tuple[Literal["connect", "reset"], ...] = ("connect", "reset")


class RateLimit(Document):
    """How many requests are served; more are refused with 429 until the allowance has refilled, evenly (GCRA)."""

    requests: int = Field(ge=1, le=10_000_000)
    per: Duration = timedelta(seconds=1)
    burst: int | None = Field(default=None, ge=1, le=10_000_000, description="At once; default: `requests`")
    key: str = Field(
        default="client_ip",
        pattern=r"^(client_ip|route|header:[!#$%&'*+.^_`|~0-9a-z-]{1,256})$",
        description="Whose allowance it is: client_ip, header:NAME (lower-case), or route: everybody's together",
    )
    scope: Literal["worker", "machine"] = Field(
        default="machine", description="machine: exact over all workers; worker: each has an allowance of its own"
    )

    @model_validator(mode="after")
    def _is_a_rate(self) -> Self:
        if not timedelta(milliseconds=1) <= self.per <= timedelta(days=31):
            raise ValueError("per lies between 1ms and 31 days")
        return self


class Policies(Document):
    """What happens to a request on its way; each part costs only the routes that use it."""

    timeout: Duration | None = Field(
        default=None, description="From the request's head to the response's last byte; of a tunnel, until it stands"
    )
    connect_timeout: Duration = timedelta(seconds=2)
    response_timeout: Duration = Field(default=timedelta(seconds=60), description="Until the head of the response")
    idle_timeout: Duration = Field(
        default=timedelta(seconds=60), description="Between two bytes of a body; of a tunnel: 10 times"
    )
    retry: RetryPolicy = RetryPolicy()
    rate_limit: RateLimit | None = None
    headers: HeaderRules = HeaderRules()
    body: BodyLimit = BodyLimit()
    upgrade: tuple[Literal["websocket"], ...] = ()
    escaped_slashes: Literal["reject", "keep"] = Field(
        default="reject", description="What becomes of %2F and %5C in a path: 400, or passed on as they came"
    )

    @field_validator("timeout", "connect_timeout", "response_timeout", "idle_timeout")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta():
            raise ValueError("a timeout is longer than 0s; leave it out for the default")
        return value


class Redirect(Document):
    """Answer with another place: a path, or an absolute URL. The query travels along."""

    to: str = Field(pattern=r"^(/|https?://)[\x21-\x7e]*$", max_length=2048)
    status: Literal[301, 302, 303, 307, 308] = 308


class Respond(Document):
    """Answer directly."""

    status: int = Field(default=200, ge=200, le=599)
    body: str = Field(default="", max_length=65536)
    content_type: str = Field(default="text/plain; charset=utf-8", pattern=r"^[\x20-\x7e]+$")


class Route(Document):
    """Match, then one of: `to` clusters, `redirect`, `respond`."""

    name: ResourceName
    match: Match
    to: tuple[WeightedCluster, ...] = ()
    redirect: Redirect | None = None
    respond: Respond | None = None
    strip_prefix: bool = Field(
        default=False, description="Take path_prefix off the path and send it as X-Forwarded-Prefix"
    )
    policies: Policies = Policies()

    @field_validator("to", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return ({"cluster": value},) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        if sum((bool(self.to), self.redirect is not None, self.respond is not None)) != 1:
            raise ValueError("give one of to, redirect and respond")
        if self.to and not any(part.weight for part in self.to):
            raise ValueError("the weights of a split cannot all be 0")
        if self.strip_prefix and self.match.path_prefix is None:
            raise ValueError("strip_prefix needs match.path_prefix")
        return self


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
    max_pending: int = Field(default=1024, ge=0)


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
    """Passive ejection: an endpoint that cannot be connected to leaves the rotation for a while, longer each time."""

    consecutive_failures: int = Field(default=1, ge=1, description="Failed connections in a row")
    base_ejection: Duration = timedelta(seconds=5)
    max_ejection: Duration = timedelta(seconds=60)


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
    zone: str = Field(default="", max_length=64, description="Endpoints of this zone are preferred while they suffice")
    limits: ConnectionLimits = ConnectionLimits()
    breaker: Breaker | None = None
    outlier: Outlier = Outlier()
    keep_alive: Duration = Field(
        default=timedelta(seconds=30), description="How long an idle upstream connection is kept"
    )
    tls: ClusterTls | None = Field(default=None, description="Speak TLS with the endpoints; {} verifies as browsers do")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.service is None) == (not self.endpoints):
            raise ValueError("give either service or endpoints")
        keys = [endpoint.key for endpoint in self.endpoints]
        if len(keys) != len(set(keys)):
            raise ValueError("an endpoint is listed twice")
        return self

    @model_validator(mode="after")
    def _key_where_needed(self) -> Self:
        by_key = self.balancer in ("ring_hash", "maglev")
        if by_key and self.hash_key is None:
            raise ValueError(f"{self.balancer} needs hash_key: what requests are told apart by")
        if self.hash_key is not None and not by_key:
            raise ValueError(f"hash_key is for ring_hash and maglev; {self.balancer} does not go by a key")
        return self


class ServerLimits(Document):
    """Bounds of what a client may send."""

    header_bytes: Size = Field(default=65536, ge=1024)
    headers: int = Field(default=100, ge=1)
    target_bytes: Size = Field(default=8192, ge=64)
    body_bytes: Size = Field(default=0, ge=0, description="0 is unbounded")
    header_timeout: Duration = timedelta(seconds=10)
    body_timeout: Duration = Field(default=timedelta(seconds=30), description="Between two bytes of a request body")
    idle_timeout: Duration = Field(default=timedelta(seconds=75), description="Between two requests of a connection")
    handshake_timeout: Duration = Field(
        default=timedelta(seconds=10), description="For a PROXY header and a TLS handshake together"
    )
    connections: int = Field(default=10_000, ge=1, description="Per worker")
    connections_per_client: int = Field(default=1_000, ge=1, description="Per worker and client address")


def _network(value: str) -> str:
    from ipaddress import ip_network

    ip_network(value)
    return value


Network = Annotated[str, AfterValidator(_network)]
TrustedPeer = Annotated[str, AfterValidator(lambda value: value if value == UNIX_PREFIX else _network(value))]


class ProxyProtocol(Document):
    """Load balancers that say in front of each connection for whom it is (the PROXY protocol, versions 1 and 2).

    Every TCP listener then waits for that, and refuses connections from anybody else.
    """

    trusted_peers: tuple[Network, ...] = Field(min_length=1, description="Networks of the load balancers, as CIDR")


class Server(Document):
    """The listeners' own settings."""

    trusted_proxies: tuple[TrustedPeer, ...] = Field(
        default=(), description="Networks whose X-Forwarded-* is believed, as CIDR; unix: is whoever comes by a socket"
    )
    limits: ServerLimits = ServerLimits()
    tls: ServerTls | None = Field(
        default=None, description="Listeners without a scheme speak TLS then, and https:// do"
    )
    proxy_protocol: ProxyProtocol | None = None


class RoutingDocument(Document):
    """A routing file, whole: `toska gateway --routes FILE`, and the router's own."""

    server: Server = Server()
    clusters: Mapping[ResourceName, Cluster] = Field(default_factory=dict[str, Cluster])
    routes: tuple[Route, ...] = ()


class RouteTable(Contract):
    """What a gateway needs besides endpoints: routes in order of precedence, and the clusters they name."""

    server: Server = Server()
    clusters: Mapping[str, Cluster] = Field(default_factory=dict[str, Cluster])
    routes: tuple[Route, ...] = ()


class ClusterEndpoints(Contract):
    """The endpoints of one cluster, under a version of their own."""

    version: str
    endpoints: tuple[Endpoint, ...] = ()


class Snapshot(Contract):
    """Complete routing: immutable, and its versions are hashes of its content."""

    routes_version: str
    table: RouteTable
    endpoints: Mapping[str, ClusterEndpoints] = Field(default_factory=dict[str, ClusterEndpoints])

    @property
    def version(self) -> str:
        """One stamp for the whole."""
        from toska_common.routing.versions import content_version

        parts = {name: cluster.version for name, cluster in self.endpoints.items()}
        return content_version({"routes": self.routes_version, "endpoints": parts})


class SnapshotPoll(Contract):
    """A gateway's blocking query: what it has, and how long it is ready to wait for something newer."""

    gateway: str = Field(max_length=256, description="Who asks, for the router's overview")
    routes_version: str = ""
    endpoints: Mapping[str, str] = Field(default_factory=dict[str, str], description="Version by cluster")
    wait_seconds: float = Field(default=55.0, ge=0, le=600)
    rejected: str = Field(
        default="", max_length=4096, description="Why the gateway refused the last snapshot, if it did"
    )
    rejected_version: str = Field(
        default="", max_length=64, description="`Snapshot.version` of what it refused; it is not sent that again"
    )


class EndpointsDelta(Contract):
    """The change of one cluster: upserts and removals on top of `base`, or everything if `base` is empty."""

    version: str
    base: str = ""
    upsert: tuple[Endpoint, ...] = ()
    remove: tuple[str, ...] = Field(default=(), description="Keys of endpoints that are gone")


class SnapshotDelta(Contract):
    """Answer to a poll: only what differs. `table` is absent if the routes are the same."""

    routes_version: str
    table: RouteTable | None = None
    endpoints: Mapping[str, EndpointsDelta] = Field(default_factory=dict[str, EndpointsDelta])
    removed_clusters: tuple[str, ...] = ()


class RouteEntry(Contract):
    """A route as the router's API shows it: where it comes from, and its version for `If-Match`."""

    route: Route
    source: Literal["file", "api", "automatic"]
    version: str


class ClusterEntry(Contract):
    """A cluster as the router's API shows it."""

    name: str
    cluster: Cluster
    source: Literal["file", "api", "automatic"]
    version: str
    endpoints: tuple[Endpoint, ...] = ()

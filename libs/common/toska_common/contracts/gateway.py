"""What the gateway tells of itself through its admin API."""

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.router import FileStatus
from toska_common.contracts.routing import Route

RouteOrigin = Literal["mesh", "operator", "automatic"]
"""Who made a route: the mesh for itself, an operator (file or API), or a service that asked for one."""


class WorkerOverview(Contract):
    """One process of the data plane; counters are those since it started."""

    pid: int
    state: str
    connections: int = 0
    requests: int = 0


class RouterLink(Contract):
    """How the gateway stands with the router; while it is away, the routing known last goes on."""

    url: str
    reachable: bool
    error: str = Field(default="", description="Why it cannot be reached, if it cannot")
    rejected: str = Field(default="", description="Why its newest snapshot was refused, if it was")
    rejected_version: str = ""


class IssuerKeys(Contract):
    """Where keys that tokens are verified with come from; what was read last is served until it can be read anew."""

    source: str
    keys: int = Field(description="How many are in force")
    read_at: datetime | None = Field(default=None, description="When they were last seen there")
    problem: str = Field(default="", description="Why they cannot be read, if they cannot")


class GatewayOverview(Contract):
    """The gateway in one look."""

    version: str = Field(default="", description="Of the snapshot that is served; empty until there is one")
    source: Literal["none", "store", "router", "file"] = Field(
        default="none", description="Where that came from: the state folder, the router, or a routing file"
    )
    listens_on: str = Field(description="URL of the first data listener")
    listeners: tuple[str, ...] = Field(default=(), description="URLs of all data listeners")
    uptime_seconds: float
    routes: int = 0
    clusters: int = 0
    endpoints: int = 0
    workers: tuple[WorkerOverview, ...] = ()
    issuer_keys: tuple[IssuerKeys, ...] = Field(default=(), description="What tokens are verified with")
    router: RouterLink | None = Field(default=None, description="Absent where a routing file is served alone")
    file: FileStatus | None = Field(default=None, description="The routing file, where one is served alone")


class RankedRoute(Contract):
    """A route in its place: a request is taken by the first one that matches."""

    rank: int = Field(description="From 0, which is asked first")
    origin: RouteOrigin
    route: Route


class ReloadResult(Contract):
    """What a reload of the routing file came to."""

    version: str
    changed: bool


class CachePurge(Document):
    """Which stored responses are forgotten: of a URL, of a route, or all."""

    url: str | None = Field(
        default=None,
        max_length=8192,
        description="The whole URL as clients ask for it, with scheme, host and query; all variants of it go",
    )
    route: str | None = Field(default=None, max_length=256, description="The route that they were stored for")
    everything: bool = Field(default=False, description="All of them; so that nobody purges all by mistake")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.url is not None) + (self.route is not None) + self.everything != 1:
            raise ValueError("give one of url, route and everything: true")
        return self


class CachePurged(Contract):
    """What a purge came to."""

    entries: int = Field(description="Responses that were forgotten, summed over the workers")


class ServiceDocument(Contract):
    """A service's OpenAPI document, as far as the gateway has it."""

    service: str
    url: str = Field(description="Where its operations are shown, each as it is called through the gateway")
    state: Literal["fresh", "stale", "missing"] = Field(
        description="stale: it could not be fetched again, and the last one is shown"
    )
    title: str = ""
    version: str = ""
    operations: int = 0
    problem: str = Field(default="", description="Why it is missing or stale")
    mesh: bool = Field(default=False, description="Whether it is a part of the mesh itself")


class ProblemType(Contract):
    """A type of problem document: what it means and what to do about it."""

    code: str
    type: str = Field(description="As in problem documents (RFC 9457)")
    status: int
    title: str
    fault: Literal["caller", "upstream", "mesh"]
    meaning: str
    remedy: str

"""What would become of a request at the gateway, and why nothing else."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from toska_common.contracts import Contract
from toska_common.contracts.gateway import RouteOrigin

FieldLine = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*$", max_length=8192)]


class ExplainRequest(Contract):
    """A request that somebody wonders about. It is not sent."""

    method: str = Field(default="GET", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$")
    url: str = Field(
        pattern=r"^[^\s\x00]+$", max_length=16384, description="Absolute, or a path: then of the gateway's own host"
    )
    headers: tuple[FieldLine, ...] = Field(default=(), max_length=200, description="Lines: Name: value")
    client: str = Field(default="127.0.0.1", max_length=64, description="Address that it comes from")


class OtherRoute(Contract):
    """A route that does not take the request."""

    name: str
    rank: int
    reasons: tuple[str, ...] = Field(description="Each condition that does not hold; or the route that goes before it")


class EndpointChoice(Contract):
    """An endpoint, and how likely it is to get the request."""

    key: str
    address: str
    weight: int
    zone: str = ""
    active: int = Field(default=0, description="Requests that this worker has on it now")
    share: float = Field(description="Of such requests, 0 to 1; a balancer that goes by load departs from it")
    state: str = Field(default="healthy", description="Or why it is not; with none healthy, all are tried")


class ClusterChoice(Contract):
    """A cluster of the route's split, as the worker sees it now."""

    name: str
    share: float = Field(description="Of the route's requests, 0 to 1")
    balancer: str = ""
    connections: int = 0
    pending: int = 0
    circuit: str | None = None
    refusal: str = Field(default="", description="Why it would be answered with 503 now, if it would")
    failover: str = Field(default="", description="Why others take over from it, or it from another, if so")
    endpoints: tuple[EndpointChoice, ...] = ()


class Explanation(Contract):
    """What would become of a request, told by one worker; others may see endpoints otherwise."""

    outcome: Literal["forwarded", "answered", "no-route", "refused"] = Field(
        description="answered: by the route itself; refused: it is no proper request"
    )
    engine: Literal["python", "envoy"] = Field(
        default="python", description="What would serve it; Envoy is spoken for by our own matcher"
    )
    notes: tuple[str, ...] = Field(default=(), description="Where the engine goes by a rule of its own")
    pid: int = Field(description="The worker that says so, or the Envoy that is spoken for")
    status: int | None = Field(default=None, description="Of the answer, where it is the gateway's own")
    error: str = Field(default="", description="Its problem type, where it is one")
    detail: str = ""
    host: str = ""
    path: str = Field(default="", description="Decoded and normal, as routes match it")
    route: str = ""
    rank: int | None = None
    origin: RouteOrigin | None = None
    match: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    policies: Mapping[str, Any] = Field(
        default_factory=dict[str, Any], description="Of the route, as far as they are not the defaults"
    )
    policies_from: tuple[str, ...] = Field(
        default=(), description="Named policies that are among them; a later one goes before an earlier"
    )
    redirect: Mapping[str, Any] | None = None
    respond: Mapping[str, Any] | None = None
    priority: int = 0
    sticky: Mapping[str, Any] | None = None
    split: str = Field(default="", description="Why the clusters share such requests so, if there are several")
    clusters: tuple[ClusterChoice, ...] = ()
    allowed_methods: tuple[str, ...] = ()
    others: tuple[OtherRoute, ...] = Field(default=(), description="The nearest first")

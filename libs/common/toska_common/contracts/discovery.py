"""Discovery's own REST API (`/api/v1/services…`): what is registered, and how it is answered.

The Consul HTTP API on port 8500 has Consul's field names and lives in `toska_discovery`; both show one registry.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import Host, ServiceName
from toska_common.contracts.profile import Profile, encode_profile

InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
MetaKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
MetaValue = Annotated[str, StringConstraints(max_length=512)]

META_EXPOSE = "toska-expose"
"""Instance metadata: `true` asks for an automatic route `/{service}/…`."""
META_OPENAPI = "toska-openapi"
"""Instance metadata: path of the OpenAPI document on the instance's own address."""
META_SAGAS = "toska-sagas"
"""Instance metadata: path of the management API of its sagas on the instance's own address."""
SAGAS_ROUTE = "toska_list_sagas"
"""Name of the route in an app by whose path that metadata is found."""
META_VERSION = "toska-version"
"""Instance metadata: version of the service, as its developers call it."""
META_SCORE = "toska-score"
"""Instance metadata: the health score that its share of traffic follows, in quarters; absent while it is whole."""
META_PREFIX = "toska-"
"""How the metadata keys begin that are the mesh's own."""

RESERVED_IDS = frozenset({"discover", "events", "graph", "instances", "versions"})
"""Words of the API in the place of an instance's id, so no instance may have them as its id."""
MAX_CALLERS = 64
"""Callers that a report names; what more there are is counted under `OTHER_CALLERS`."""
OTHER_CALLERS = "other"


class Health(StrEnum):
    """What is known of an instance's health, in Consul's words."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class Registration(Profile, Document):
    """A request to be listed; without an `id` one is made of service, address and port."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "service": "invoices",
                    "address": "127.0.0.1",
                    "port": 9021,
                    "version": "1.4.0",
                    "zone": "eu-1a",
                    "capabilities": ["pdf"],
                    "depends_on": ["orders"],
                    "metadata": {"team": "billing"},
                }
            ]
        }
    )

    id: InstanceId | None = None
    service: ServiceName
    address: Host
    port: int = Field(ge=1, le=65535)
    tags: tuple[Tag, ...] = Field(default=(), max_length=64)
    metadata: Mapping[MetaKey, MetaValue] = Field(
        default_factory=dict[str, str], max_length=48, description="Labels and annotations, for whoever reads them"
    )
    weight: int = Field(default=1, ge=1, le=65535)
    ttl_seconds: float | None = Field(
        default=None, gt=0, le=86400, description="Life of the lease; default of the registry"
    )

    @field_validator("id")
    @classmethod
    def _not_reserved(cls, value: str | None) -> str | None:
        if value in RESERVED_IDS:
            raise ValueError(f"{value} is a word of this API, choose another id")
        return value

    @property
    def meta(self) -> dict[str, str]:
        """The metadata together with the profile, as the registry keeps both."""
        return {**self.metadata, **encode_profile(self)}


class Report(Contract):
    """What an instance says of itself with a renewal; a hint for choosing and for pictures, never proof of anything."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"score": 0.9, "in_flight": 4, "error_ratio": 0.1, "callers": {"orders": 120}}]}
    )

    score: float = Field(default=1.0, ge=0, le=1, description="How well it does: 1 is as it should be")
    in_flight: int = Field(default=0, ge=0, description="Requests being served")
    load: float | None = Field(default=None, ge=0, description="Share of its capacity in use, if it knows that")
    error_ratio: float = Field(default=0.0, ge=0, le=1, description="Share of requests that failed, lately")
    latency_ms: float | None = Field(default=None, ge=0, description="Median time of a request, lately")
    requests: int = Field(default=0, ge=0, description="Requests answered since it started")
    callers: Mapping[ServiceName, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict[str, int],
        max_length=MAX_CALLERS + 1,
        description="Requests since it started, by the service that sent them",
    )


class Instance(Contract):
    """One advertised address of a service, listed while its lease is renewed."""

    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = Field(default_factory=dict[str, str])
    weight: int = 1
    health: Health = Health.PASSING
    ttl_seconds: float | None = None
    registered_at: datetime | None = None
    type: str = ""
    version: str = ""
    region: str = ""
    zone: str = ""
    protocols: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    track: str = ""
    priority: int = 0
    health_path: str = ""
    resources: Mapping[str, str] = Field(default_factory=dict[str, str])
    sla: Mapping[str, str] = Field(default_factory=dict[str, str])
    score: float = Field(default=1.0, description="0 to 1, of the verdicts of its checks and of what it reports")
    report: Report | None = Field(default=None, description="Of its last renewal, if that brought one")


class ServiceSummary(Contract):
    """A service and how its instances are."""

    name: str
    tags: tuple[str, ...] = ()
    passing: int = 0
    warning: int = 0
    critical: int = 0
    versions: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    score: float = Field(default=1.0, description="Mean of its instances' scores")


class Heartbeat(Contract):
    """Answer to a renewal: for how long the lease is good again."""

    id: str
    ttl_seconds: float


class VersionSummary(Contract):
    """One version of a service beside its others."""

    version: str
    role: Literal["stable", "canary", "blue", "green", ""] = ""
    instances: int = 0
    passing: int = 0
    warning: int = 0
    critical: int = 0
    weight: int = Field(default=0, description="Sum of the weights of those that take traffic")
    share: float = Field(default=0.0, description="Of the service's traffic, by weights and health scores; 0 to 1")
    score: float = 1.0
    first_registered_at: datetime | None = None


class ServiceVersions(Contract):
    """The versions of one service, by share of traffic."""

    name: str
    deployment: Literal["none", "single", "canary", "blue-green", "mixed"]
    versions: tuple[VersionSummary, ...] = ()


class Metadata(Contract):
    """An instance's metadata, less the mesh's own keys; `version` counts its changes from 1."""

    id: str
    version: int
    metadata: Mapping[str, str]
    updated_at: datetime | None = None


class GraphNode(Contract):
    """A service of the dependency graph; `listed` is false for one that only others speak of."""

    name: str
    listed: bool = True
    health: Health = Health.PASSING
    instances: int = 0


class GraphEdge(Contract):
    """`caller` depends on `callee`: it says so, or was seen calling."""

    caller: str
    callee: str
    declared: bool = False
    observed: bool = False
    requests: int = Field(default=0, description="Seen by the callee's present instances")


class ServiceGraph(Contract):
    """Who depends on whom."""

    nodes: tuple[GraphNode, ...] = ()
    edges: tuple[GraphEdge, ...] = ()


class ServiceEvent(Contract):
    """Something became of an instance; `instance` is how it is now, or was when it went."""

    type: Literal["registered", "updated", "health-changed", "deregistered"]
    reason: str = Field(default="", description="Why it went: deregistered, evicted, or removed after being critical")
    instance: Instance

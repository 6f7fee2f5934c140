"""Discovery's own REST API (`/api/v1/services…`): what is registered, and how it is answered.

The Consul HTTP API on port 8500 has Consul's field names and lives in `toska_discovery`; both show one registry.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import Host, ServiceName

InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
MetaKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
MetaValue = Annotated[str, StringConstraints(max_length=512)]

META_EXPOSE = "toska-expose"
"""Instance metadata: `true` asks for an automatic route `/{service}/…`."""
META_OPENAPI = "toska-openapi"
"""Instance metadata: path of the OpenAPI document on the instance's own address."""
META_VERSION = "toska-version"
"""Instance metadata: version of the service, as its developers call it."""


class Health(StrEnum):
    """What is known of an instance's health, in Consul's words."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class Registration(Document):
    """A request to be listed; without an `id` one is made of service, address and port."""

    id: InstanceId | None = None
    service: ServiceName
    address: Host
    port: int = Field(ge=1, le=65535)
    tags: tuple[Tag, ...] = Field(default=(), max_length=64)
    metadata: Mapping[MetaKey, MetaValue] = Field(default_factory=dict[str, str], max_length=64)
    weight: int = Field(default=1, ge=1, le=65535)
    ttl_seconds: float | None = Field(
        default=None, gt=0, le=86400, description="Life of the lease; default of the registry"
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


class ServiceSummary(Contract):
    """A service and how its instances are."""

    name: str
    tags: tuple[str, ...] = ()
    passing: int = 0
    warning: int = 0
    critical: int = 0


class Heartbeat(Contract):
    """Answer to a renewal: for how long the lease is good again."""

    id: str
    ttl_seconds: float

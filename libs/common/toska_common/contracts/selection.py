"""Choosing endpoints for clients that balance by themselves, and what came of their requests."""

from typing import Self

from pydantic import Field, model_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import ResourceName, ServiceName
from toska_common.contracts.routing import Endpoint
from toska_common.contracts.routing.clusters import Balancer


class SelectRequest(Document):
    """Which endpoint a strategy would choose of a cluster, or of a service's instances."""

    cluster: ResourceName | None = None
    service: ServiceName | None = None
    strategy: Balancer | None = Field(
        default=None, description="Default: the cluster's balancer; of a service, least_request"
    )
    hash_key: str | None = Field(
        default=None, min_length=1, max_length=1024, description="What ip_hash, ring_hash and maglev go by"
    )
    zone: str = Field(default="", max_length=64, description="Prefer endpoints of this zone; default: the cluster's")
    exclude: tuple[str, ...] = Field(
        default=(), max_length=1000, description="Keys of endpoints that were tried already, or address:port"
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.cluster is None) == (self.service is None):
            raise ValueError("give either cluster or service")
        return self


class EndpointFigures(Contract):
    """What is known of the requests to an endpoint: gateways' reports and those of clients together."""

    requests: int = Field(default=0, description="That have ended")
    failures: int = Field(default=0, description="Of those: broken off, or answered with 5xx")
    in_flight: int = Field(default=0, description="At gateways, and selected and not yet reported")
    latency_seconds: float | None = Field(
        default=None, description="To be expected now: a peak-sensitive moving average; absent before the first"
    )
    mean_seconds: float | None = Field(default=None, description="Mean of all; absent before the first")


class Selected(Contract):
    """An endpoint to send a request to."""

    endpoint: Endpoint
    key: str = Field(description="What reports name it by")
    strategy: Balancer
    cluster: str | None = None
    service: str | None = None
    version: str = Field(description="Of the snapshot that it was chosen from")
    figures: EndpointFigures


class Outcome(Document):
    """Requests to one endpoint that have ended."""

    cluster: ResourceName | None = None
    service: ServiceName | None = None
    endpoint: str = Field(min_length=1, max_length=512, description="Its key")
    requests: int = Field(default=1, ge=0, le=10**9)
    failures: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, le=10**9, description="That they took, in all")
    in_flight: int | None = Field(
        default=None, ge=0, description="How many there still are; told by gateways, whose requests were not selected"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.cluster is None) == (self.service is None):
            raise ValueError("give either cluster or service")
        if self.failures > self.requests:
            raise ValueError("failures cannot be more than requests")
        return self


class SelectReport(Document):
    """What came of requests; for many at once, sums."""

    reporter: str = Field(min_length=1, max_length=256, description="Who tells")
    outcomes: tuple[Outcome, ...] = Field(max_length=2000)


class Accepted(Contract):
    """How many outcomes were taken; the others were of endpoints that are not there any more."""

    taken: int

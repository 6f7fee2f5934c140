"""Trying things on live traffic: faults that are put in on purpose, and copies of requests for a shadow."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.versioning import Moment
from toska_common.contracts.routing.words import HeaderName, HeaderValue, Method
from toska_common.units import Duration, Size

_LONGEST = timedelta(minutes=5)
_MOST_BYTES = 1024 * 1024


class Delay(Document):
    """Makes some requests wait."""

    fixed: Duration = Field(description="How long, at most 5m")
    jitter: Duration = Field(default=timedelta(), description="Up to so much longer, evenly spread")
    percent: float = Field(default=100.0, gt=0, le=100, description="Of the requests")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.fixed < timedelta() or self.jitter < timedelta() or not timedelta() < self.fixed + self.jitter:
            raise ValueError("a delay is longer than 0s")
        if self.fixed + self.jitter > _LONGEST:
            raise ValueError("fixed and jitter together are at most 5m")
        return self


class Abort(Document):
    """Fails some requests: with a status, or by breaking their connection off."""

    status: int | None = Field(default=None, ge=400, le=599)
    reset: bool = Field(default=False, description="Reset the client's connection instead of answering")
    percent: float = Field(default=100.0, gt=0, le=100, description="Of the requests")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.status is None) != self.reset:
            raise ValueError("give either status or reset: true")
        return self


class Fault(Document):
    """Faults on purpose, to see what becomes of callers: a delay, an abort, or the one and then the other."""

    delay: Delay | None = None
    abort: Abort | None = None
    headers: Mapping[HeaderName, HeaderValue] = Field(
        default_factory=dict[str, str], description="Only requests with all of these, with exactly these values"
    )
    clusters: tuple[ResourceName, ...] = Field(
        default=(), max_length=64, description="Only requests that go to one of these"
    )
    until: Moment | None = Field(
        default=None, description="Nothing is hit from then on, whatever has become of who put the fault there"
    )

    @model_validator(mode="after")
    def _some_fault(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("give delay, abort, or both")
        return self


class Mirror(Document):
    """Copies of requests go to a shadow cluster too, with `x-toska-mirror: true`; its answers are thrown away.

    A copy never delays its original, and what goes wrong with it is nobody's failure.
    """

    cluster: ResourceName
    percent: float = Field(default=100.0, gt=0, le=100, description="Of the requests")
    methods: tuple[Method, ...] = Field(
        default=("GET", "HEAD", "OPTIONS"), min_length=1, description="Others may do something twice"
    )
    max_body_bytes: Size = Field(
        default=65536, ge=0, le=_MOST_BYTES, description="Requests with a longer body are not copied"
    )
    max_in_flight: int = Field(default=100, ge=1, le=10_000, description="Per worker; beyond it nothing is copied")
    timeout: Duration = Field(default=timedelta(seconds=10), description="After that a copy is given up")

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not timedelta() < self.timeout <= _LONGEST:
            raise ValueError("timeout is longer than 0s and at most 5m")
        return self

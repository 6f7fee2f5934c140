"""What becomes of a request whose upstream fails it: tried again, tried twice at once, or served from elsewhere."""

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.respond import Respond
from toska_common.contracts.routing.words import NUMBER_AS_WORD
from toska_common.units import Duration, Size

_FAILURES = ("connect", "reset", "timeout")
_REFUSALS = ("unavailable", "circuit_open", "overloaded")
_STATUS = re.compile(r"5xx|[45][0-9]{2}")


def _condition_of(*words: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in words and not _STATUS.fullmatch(value):
            raise ValueError(f'{value!r} is none of {", ".join(words)}, 5xx, and statuses from 400 on such as "503"')
        return value

    return AfterValidator(check)


RetryCondition = Annotated[str, NUMBER_AS_WORD, _condition_of(*_FAILURES)]
"""What an attempt can fail by: `connect` (no connection, or not in time), `reset` (it broke off before a response),
`timeout` (no response in time), or a status."""

FallbackCondition = Annotated[str, NUMBER_AS_WORD, _condition_of(*_REFUSALS, *_FAILURES)]
"""`RetryCondition`, or why there was no attempt at all: no endpoint, an open circuit, a limit that is reached."""


class Backoff(Document):
    """How long a retry waits: a random time up to `base`, doubled with each further one, and never over `max`."""

    base: Duration = timedelta(milliseconds=25)
    max: Duration = timedelta(milliseconds=250)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not timedelta() <= self.base <= self.max <= timedelta(minutes=1):
            raise ValueError("base is at most max, and max at most 1m")
        return self


class RetryPolicy(Document):
    """How often a request is tried: `attempts` counts the first try too.

    Only what may be done twice is repeated: idempotent methods with a body that is still held, and anything of which
    nothing was sent. It goes to another endpoint, if there is one, and never after the first byte of a response.
    """

    attempts: int = Field(default=2, ge=1, le=5)
    retry_on: tuple[RetryCondition, ...] = Field(
        default=("connect", "reset"), description='Any of connect, reset, timeout, 5xx, and statuses such as "503"'
    )
    per_try_timeout: Duration | None = Field(
        default=None, description="Until the head of the response, for each try; default: response_timeout"
    )
    backoff: Backoff = Backoff()
    budget: float = Field(
        default=0.2, ge=0, le=1, description="Retries and hedges of a cluster, as a share of the requests of a second"
    )
    budget_floor: int = Field(
        default=10, ge=0, le=10_000, description="Retries and hedges a second that are allowed however few requests are"
    )
    idempotency_key: bool = Field(
        default=False, description="A request with an Idempotency-Key may be repeated whatever its method"
    )
    replay_bytes: Size = Field(
        default=65536, ge=0, le=16 * 2**20, description="A request with a larger body is not repeated"
    )
    max_retry_after: Duration = Field(
        default=timedelta(seconds=1),
        description="A response whose Retry-After is longer is passed on; a shorter one is waited for",
    )

    @field_validator("per_try_timeout")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta():
            raise ValueError("a timeout is longer than 0s; leave it out for the default")
        return value


class Hedge(Document):
    """A second attempt on another endpoint, while the first is still waited for; who answers first is heard.

    For idempotent requests; counts against the retry budget.
    """

    after: Duration = Field(description="How long a response may take before the next attempt begins")
    attempts: int = Field(default=1, ge=1, le=3, description="How many besides the first, each `after` the one before")

    @field_validator("after")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(milliseconds=1):
            raise ValueError("is at least 1ms")
        return value


class Fallback(Document):
    """Who answers when the cluster could not: another cluster, or a fixed response."""

    cluster: ResourceName | None = None
    respond: Respond | None = None
    on: tuple[FallbackCondition, ...] = (*_REFUSALS, *_FAILURES)

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if not self.on:
            raise ValueError("on names at least one condition; leave it out for all but statuses")
        if (self.cluster is None) == (self.respond is None):
            raise ValueError("give either cluster or respond")
        return self

"""Asking endpoints how they are, instead of waiting until requests find out."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import NUMBER_AS_WORD
from toska_common.units import Duration

StatusRange = Annotated[str, NUMBER_AS_WORD, StringConstraints(pattern=r"^([1-5]xx|[1-5][0-9]{2}(-[1-5][0-9]{2})?)$")]
"""A status (`204`), a class of them (`2xx`), or a range with both ends (`200-399`)."""


class HealthCheck(Document):
    """A GET to every endpoint, over the cluster's own TLS; what fails it gets no requests.

    The first answer decides at once; after that it takes `fall` failures in a row, or `rise` successes.
    """

    path: str = Field(default="/health/ready", pattern=r"^/[\x21-\x7e]*$", max_length=2048)
    host: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.\-:\[\]]{1,255}$",
        description="The Host that is asked for; default: the endpoint's address and port",
    )
    interval: Duration = timedelta(seconds=5)
    timeout: Duration = timedelta(seconds=1)
    rise: int = Field(default=2, ge=1, le=100, description="Successes in a row after which it is healthy again")
    fall: int = Field(default=3, ge=1, le=100, description="Failures in a row after which it is unhealthy")
    expect: tuple[StatusRange, ...] = Field(default=("200-399",), min_length=1, description="Statuses that are well")

    @field_validator("expect")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            low, dash, high = item.partition("-")
            if dash and low > high:
                raise ValueError(f"{item} is empty: the lower status comes first")
        return value

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if not timedelta(milliseconds=100) <= self.interval <= timedelta(hours=1):
            raise ValueError("interval lies between 100ms and 1h")
        if not timedelta() < self.timeout <= self.interval:
            raise ValueError("timeout is longer than 0s and at most the interval, so that no two checks overlap")
        return self

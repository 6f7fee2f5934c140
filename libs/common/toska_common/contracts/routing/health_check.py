"""Asking endpoints how they are, instead of waiting until requests find out."""

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import NUMBER_AS_WORD
from toska_common.units import Duration

_RANGE = re.compile(r"[1-5]xx|[1-5][0-9]{2}(-[1-5][0-9]{2})?")
_PATH = re.compile(r"/[\x21-\x7e]*")


def _range(value: str) -> str:
    low, dash, high = value.partition("-")
    if not _RANGE.fullmatch(value) or (dash and low > high):
        raise ValueError(f"{value!r} is no status (204), class (2xx), or range with its lower end first (200-399)")
    return value


def _target(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError("a path starts with /, and is written as it is sent: in ASCII and without spaces")
    return value


StatusRange = Annotated[str, NUMBER_AS_WORD, AfterValidator(_range)]
"""A status (`204`), a class of them (`2xx`), or a range with both ends (`200-399`)."""


class HealthCheck(Document):
    """A GET to every endpoint, over the cluster's own TLS; what fails it gets no requests.

    The first answer decides at once; after that it takes `fall` failures in a row, or `rise` successes.
    """

    path: Annotated[str, AfterValidator(_target)] = Field(default="/health/ready", max_length=2048)
    host: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.\-:\[\]]{1,255}$",
        description="The Host that is asked for; default: the endpoint's address and port",
    )
    interval: Duration = timedelta(seconds=5)
    timeout: Duration = timedelta(seconds=1)
    rise: int = Field(default=2, ge=1, le=100, description="Successes in a row after which it is healthy again")
    fall: int = Field(default=3, ge=1, le=100, description="Failures in a row after which it is unhealthy")
    expect: tuple[StatusRange, ...] = Field(default=("200-399",), description="Statuses that are well")

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if not self.expect:
            raise ValueError("expect names at least one status")
        if not timedelta(milliseconds=100) <= self.interval <= timedelta(hours=1):
            raise ValueError("interval lies between 100ms and 1h")
        if not timedelta() < self.timeout <= self.interval:
            raise ValueError("timeout is longer than 0s and at most the interval, so that no two checks overlap")
        return self

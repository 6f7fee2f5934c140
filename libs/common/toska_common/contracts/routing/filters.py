"""Filters: an operator's own Python classes in the way of a route's requests (`toska_common.filters`)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.units import Duration

FilterClass = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=256)]
"""`package.module:Class`."""

_LONGEST = timedelta(seconds=30)


class FilterUse(Document):
    """One filter of a route; the short form is its class alone."""

    use: FilterClass = Field(description="package.module:Class, a toska_common.filters.Filter")
    settings: Mapping[str, Any] = Field(
        default_factory=dict[str, Any], description="As the filter's own model has them. No secrets: routes can be read"
    )
    timeout: Duration = Field(
        default=timedelta(seconds=1), description="How long one call of it may take before it is broken off"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=10) <= value <= _LONGEST:
            raise ValueError("timeout lies between 10ms and 30s")
        return value

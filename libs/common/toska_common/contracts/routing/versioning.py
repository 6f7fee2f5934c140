"""Versions of an API beside one another: how a request names one, who serves it, and when it ends."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.words import FRAMING, HeaderName

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:Z|[+-]\d{2}:\d{2}))?")


def _moment(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
        raise ValueError("a date, 2026-12-31, or a date and time with its zone, 2026-12-31T12:00:00Z")
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    PlainSerializer(lambda moment: moment.isoformat().replace("+00:00", "Z"), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["2026-12-31", "2026-12-31T12:00:00Z"]}),
]
"""A point in time, written as `2026-12-31` (its beginning, UTC) or with time and zone."""

Version = Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.-]{0,31}$")]


def _url(value: str) -> str:
    if re.fullmatch(r"(?:https?://[^\s<>\"\\^`{|}]+|/[^\s<>\"\\^`{|}]*)", value) is None or not value.isascii():
        raise ValueError("an absolute URL of http or https, or a path")
    return value


Link = Annotated[str, Field(max_length=2048), AfterValidator(_url)]


class ApiVersion(Document):
    """One version: who serves it, and since when it should not be used (RFC 9745), until when it can be (RFC 8594)."""

    cluster: ResourceName | None = Field(default=None, description="Who serves it; default: the route's `to`")
    deprecated: Moment | None = Field(default=None, description="Deprecation: since then, or from then on")
    sunset: Moment | None = Field(default=None, description="Sunset: from then on it may be gone")
    after_sunset: Literal["serve", "gone"] = Field(default="serve", description="gone: 410 once the sunset has come")
    deprecation_link: Link | None = Field(default=None, description="What to read about it: Link rel=deprecation")
    sunset_link: Link | None = Field(default=None, description="Link rel=sunset")
    successor: Link | None = Field(default=None, description="Link rel=successor-version")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sunset is None and self.after_sunset == "gone":
            raise ValueError("after_sunset needs sunset")
        if self.sunset is not None and self.deprecated is not None and self.sunset < self.deprecated:
            raise ValueError("the sunset does not come before the deprecation (RFC 9745 §4)")
        return self


class Versions(Document):
    """How requests name the version they mean; the first way of `by` in which they do counts.

    - `path`: the segment after the route's prefix, `/v1/orders` or `/v2.1/orders`
    - `header`: `X-API-Version: 1`
    - `media_type`: of Accept, `application/vnd.shop.v1+json` or `application/json; v=1`
    - `query`: `?api-version=1`
    """

    by: tuple[Literal["path", "header", "media_type", "query"], ...] = Field(min_length=1)
    known: Mapping[Version, ApiVersion] = Field(min_length=1)
    default: Version | None = Field(default=None, description="Of requests that name none; without it they get 400")
    header: HeaderName = "x-api-version"
    parameter: str = Field(default="v", pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="Of the media type")
    query: str = Field(default="api-version", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    strip_path: bool = Field(default=False, description="Take the version's segment off the path for the upstream")
    forward_as: HeaderName | None = Field(
        default="x-api-version", description="Tells the upstream the version, whichever way it came"
    )

    @model_validator(mode="after")
    def _known_default(self) -> Self:
        if self.default is not None and self.default not in self.known:
            raise ValueError(f'default: "{self.default}" is not among the known versions')
        if len(set(self.by)) != len(self.by):
            raise ValueError("by: each way stands there once")
        if self.strip_path and "path" not in self.by:
            raise ValueError("strip_path needs path in by")
        for name in ("header", "forward_as"):
            if getattr(self, name) in {*FRAMING, "accept"}:
                raise ValueError(f"{name}: {getattr(self, name)} is used for something else")
        return self

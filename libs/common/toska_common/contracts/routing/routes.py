"""Which requests go where: a match, and what becomes of those that fit it."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.policies import Policies
from toska_common.contracts.routing.words import ExactPath, HeaderName, HeaderValue, MatchHost, Method, Path


class Match(Document):
    """Which requests a route takes. All that is given must hold; a longer, more exact match goes first."""

    host: MatchHost | None = None
    path: ExactPath | None = Field(
        default=None, description="Exactly this path; * takes an OPTIONS of the server as a whole (RFC 9112 §3.2.4)"
    )
    path_prefix: Path | None = Field(
        default=None, description="By segment: /orders takes /orders and /orders/1, not /ordersx"
    )
    except_prefixes: tuple[Path, ...] = Field(default=(), description="Paths below that the route does not take")
    methods: tuple[Method, ...] = ()
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    query: Mapping[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if (self.path is None) == (self.path_prefix is None):
            raise ValueError("give either path or path_prefix")
        return self


class WeightedCluster(Document):
    """One part of a split."""

    cluster: ResourceName
    weight: int = Field(default=1, ge=0, le=1_000_000)


class Redirect(Document):
    """Answer with another place: a path, or an absolute URL. The query travels along."""

    to: str = Field(pattern=r"^(/|https?://)[\x21-\x7e]*$", max_length=2048)
    status: Literal[301, 302, 303, 307, 308] = 308


class Respond(Document):
    """Answer directly."""

    status: int = Field(default=200, ge=200, le=599)
    body: str = Field(default="", max_length=65536)
    content_type: str = Field(default="text/plain; charset=utf-8", pattern=r"^[\x20-\x7e]+$")


class Route(Document):
    """Match, then one of: `to` clusters, `redirect`, `respond`."""

    name: ResourceName
    match: Match
    to: tuple[WeightedCluster, ...] = ()
    redirect: Redirect | None = None
    respond: Respond | None = None
    strip_prefix: bool = Field(
        default=False, description="Take path_prefix off the path and send it as X-Forwarded-Prefix"
    )
    policies: Policies = Policies()

    @field_validator("to", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return ({"cluster": value},) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        if sum((bool(self.to), self.redirect is not None, self.respond is not None)) != 1:
            raise ValueError("give one of to, redirect and respond")
        if self.to and not any(part.weight for part in self.to):
            raise ValueError("the weights of a split cannot all be 0")
        if self.strip_prefix and self.match.path_prefix is None:
            raise ValueError("strip_prefix needs match.path_prefix")
        return self

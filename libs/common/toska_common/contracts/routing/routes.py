"""Which requests go where: a match, and what becomes of those that fit it."""

from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.policies import Policies
from toska_common.contracts.routing.respond import Respond
from toska_common.contracts.routing.rewriting import PathRegex, Redirect
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
    path_regex: PathRegex | None = Field(
        default=None, description="A regular expression of RE2 that the whole decoded path has to fit"
    )
    except_prefixes: tuple[Path, ...] = Field(default=(), description="Paths below that the route does not take")
    methods: tuple[Method, ...] = ()
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    query: Mapping[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if sum(path is not None for path in (self.path, self.path_prefix, self.path_regex)) != 1:
            raise ValueError("give one of path, path_prefix and path_regex")
        return self


class WeightedCluster(Document):
    """One part of a split."""

    cluster: ResourceName
    weight: int = Field(default=1, ge=0, le=1_000_000)


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
        return self

    @model_validator(mode="after")
    def _one_path_for_the_upstream(self) -> Self:
        rewrite = self.policies.rewrite
        if self.strip_prefix and self.match.path_prefix is None:
            raise ValueError("strip_prefix needs match.path_prefix")
        if rewrite is not None:
            if not self.to:
                raise ValueError("policies.rewrite is for routes with to; a redirect has words of its own")
            if self.strip_prefix and (rewrite.prefix or rewrite.replacement):
                raise ValueError("give either strip_prefix or policies.rewrite")
            rewrite.check_against(self.match.path_prefix, self.match.path_regex)
        if self.redirect is not None:
            self.redirect.check_against(self.match.path_prefix, self.match.path_regex)
        if self.policies.mirror is not None and not self.to:
            raise ValueError("policies.mirror is for routes with to: there is nothing else to copy")
        versions = self.policies.versions
        if versions is not None and not self.to and any(one.cluster for one in versions.known.values()):
            raise ValueError("policies.versions: a version has a cluster of its own only on a route with to")
        if versions is not None and "path" in versions.by and self.match.path_prefix is None:
            raise ValueError("policies.versions: by path needs match.path_prefix, after which the version stands")
        return self

    def named_clusters(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every cluster that the route can lead to, with where in the route its name stands."""
        for index, part in enumerate(self.to):
            yield ("to", index, "cluster"), part.cluster
        versions, mirror, fallback = self.policies.versions, self.policies.mirror, self.policies.fallback
        for name, version in versions.known.items() if versions is not None else ():
            if version.cluster is not None:
                yield ("policies", "versions", "known", name, "cluster"), version.cluster
        if mirror is not None:
            yield ("policies", "mirror", "cluster"), mirror.cluster
        if fallback is not None and fallback.cluster is not None:
            yield ("policies", "fallback", "cluster"), fallback.cluster

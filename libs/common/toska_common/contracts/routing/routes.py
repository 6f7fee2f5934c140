"""Which requests go where: a match, and what becomes of those that fit it."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.matching import Match
from toska_common.contracts.routing.policies import Policies
from toska_common.contracts.routing.respond import Respond
from toska_common.contracts.routing.rewriting import Redirect
from toska_common.contracts.routing.splits import Sticky, WeightedCluster

_NONE = Policies()
"""One for all routes that have none: a plain default would be copied for each, which is most of reading a route."""


class Route(Document):
    """Match, then one of: `to` clusters, `redirect`, `respond`."""

    name: ResourceName
    priority: int = Field(
        default=0, ge=-1000, le=1000, description="Goes before everything else: the higher is asked first"
    )
    match: Match
    to: tuple[WeightedCluster, ...] = ()
    sticky: Sticky | None = Field(default=None, description="Callers stay with their part of the split")
    redirect: Redirect | None = None
    respond: Respond | None = None
    strip_prefix: bool = Field(
        default=False, description="Take path_prefix off the path and send it as X-Forwarded-Prefix"
    )
    policies_from: tuple[ResourceName, ...] = Field(
        default=(),
        max_length=16,
        description="Named policies; a key of a later one goes before that of an earlier, the route's own before all",
    )
    policies: Policies = Field(default_factory=lambda: _NONE)

    @field_validator("policies_from", mode="before")
    @classmethod
    def _one_policy(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("policies_from")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a policy stands twice")
        return value

    @field_validator("to", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return ({"cluster": value},) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        if sum((bool(self.to), self.redirect is not None, self.respond is not None)) != 1:
            raise ValueError("give one of to, redirect and respond")
        if self.to and not any(part.weight for part in self.to if part.when is None):
            whole = all(part.when is None for part in self.to)
            raise ValueError(
                "the weights of a split cannot all be 0"
                if whole
                else "one part of to has no when, and a weight: it takes what is left"
            )
        if self.sticky is not None and not self.to:
            raise ValueError("sticky is for routes with to")
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
            rewrite.check_against(self.match.path_prefix, self.match.path_regex, self.match.path_template)
        if self.redirect is not None:
            self.redirect.check_against(self.match.path_prefix, self.match.path_regex, self.match.path_template)
        if self.policies.mirror is not None and not self.to:
            raise ValueError("policies.mirror is for routes with to: there is nothing else to copy")
        versions = self.policies.versions
        if versions is not None and not self.to and any(one.cluster for one in versions.known.values()):
            raise ValueError("policies.versions: a version has a cluster of its own only on a route with to")
        if versions is not None and "path" in versions.by and self.match.path_prefix is None:
            raise ValueError("policies.versions: by path needs match.path_prefix, after which the version stands")
        return self

    @model_validator(mode="after")
    def _claims_where_there_are_some(self) -> Self:
        # Policies that are named complete one another, so only what they come to can be judged (`merging`).
        if not self.policies_from:
            self.check_complete()
        return self

    def check_complete(self) -> None:
        """Let a route pass whose policies are all that it has.

        Raises:
            ValueError: Something that it or they need is missing.
        """
        self.policies.check_complete()
        if self.sticky is not None and self.sticky.claim is not None and self.policies.auth is None:
            raise ValueError("sticky by a claim needs policies.auth: without it no token is verified")

    def named_clusters(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every cluster that the route can lead to, with where in the route its name stands."""
        for index, part in enumerate(self.to):
            yield ("to", index, "cluster"), part.cluster
        for where, name in self.policies.named_clusters():
            yield ("policies", *where), name

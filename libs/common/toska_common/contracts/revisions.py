"""The history of routing: who changed what, when and why, how versions differ, and what a change would come to."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from toska_common.contracts import Contract, Document

Kind = Literal["route", "cluster", "policy"]


class ResourceChange(Contract):
    """What a revision left of a resource."""

    kind: Kind
    name: str
    version: str = Field(default="", description="Its ETag; empty where it was taken away")


class Revision(Contract):
    """One change of the whole, made in one transaction."""

    revision: int = Field(description="Counts up by one, for all routers of a database together")
    at: datetime
    source: str = Field(description="api, rollback, or import: of the file that older releases kept")
    credential: str = Field(default="", description="What the caller showed: admin is the admin token")
    actor: str = Field(default="", description="Who they said they are (X-Toska-Actor); nobody has checked it")
    reason: str = Field(default="", description="Why, as they said it (X-Toska-Reason)")
    changes: tuple[ResourceChange, ...] = ()


class ResourceRevision(Contract):
    """A resource as one revision left it."""

    revision: int
    at: datetime
    source: str
    credential: str = ""
    actor: str = ""
    reason: str = ""
    version: str = Field(default="", description="Its ETag; empty where it was taken away")
    body: Mapping[str, Any] | None = Field(default=None, description="As it was written; null where it was taken away")


class Difference(Contract):
    """One value that is not the same."""

    path: str = Field(description="Such as policies.timeout; empty for the whole")
    change: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class ItemDifference(Contract):
    """How a route, cluster or policy differs."""

    name: str
    change: Literal["added", "removed", "changed"]
    rank: int | None = Field(default=None, description="Of a route: its place afterwards, 0 is asked first")
    differences: tuple[Difference, ...] = ()


class WrittenDifference(ItemDifference):
    """The same, of what people wrote."""

    kind: Kind


class CompiledDifference(Contract):
    """What gateways see of a change: routes in order of precedence, with their policies merged, and clusters."""

    routes_version_before: str
    routes_version: str
    routes: tuple[ItemDifference, ...] = ()
    clusters: tuple[ItemDifference, ...] = ()


class ChangePreview(Contract):
    """What a change would come to, and what rollbacks and diffs come to; `compiled` only where it would be made now."""

    written: tuple[WrittenDifference, ...] = ()
    compiled: CompiledDifference | None = None
    revision: int | None = Field(default=None, description="What was made of it, if anything was different")


class Rollback(Document):
    """Where to go back to."""

    revision: int = Field(ge=0, description="What it left is what will hold; 0 is nothing at all")

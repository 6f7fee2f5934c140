"""What client and server say to each other, without the wire: requests, responses, and verdicts on responses.

Sources: `envoy.service.discovery.v3.DiscoveryRequest`, `DeltaDiscoveryRequest` and their responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toska_router.xds.resources import Resource, TypeResources


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is; its first request tells, later ones may leave it out."""

    id: str = ""
    cluster: str = ""
    zone: str = ""
    user_agent: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Request:
    """One request, of either variant.

    Attributes:
        type_url: The type that it is about.
        nonce: Of the response that it answers; empty if it answers none.
        error: Why that response was refused; `None` if it was not.
        version: State of the world: the newest version that the client runs.
        names: State of the world: all names that it subscribes to.
        subscribe: Incremental: names that it subscribes to from now on.
        unsubscribe: Incremental: names that it does not want any more.
        known: Incremental: versions of the resources that it has, at the start of a stream.
        node: Who it is, if it says so.
    """

    type_url: str
    nonce: str = ""
    error: str | None = None
    version: str = ""
    names: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict[str, str])
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One response, of either variant.

    Attributes:
        type_url: The type that it is about.
        nonce: Unique within its stream.
        version: Of all resources of the type.
        resources: In no particular order.
        removed: Incremental: names that are gone, or never were.
        whole: The set that `resources` is exactly the wildcard of, if it is: a codec encodes it once for all.
    """

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    whole: TypeResources | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client refused, and why.

    Attributes:
        type_url: The type.
        version: That the response had.
        names: The resources in it, at most `MAX_REFUSED_NAMES`; one alone is the one that is wrong.
        reason: In the client's words.
    """

    type_url: str
    version: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A response that a client took over."""

    type_url: str
    version: str


Verdict = Acceptance | Refusal

MAX_REFUSED_NAMES = 20
MAX_REASON = 2_000

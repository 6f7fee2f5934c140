"""Events of the mesh itself, on topics `mesh.<noun>.<past-tense verb>`, and those that services tell its caches.

They tell that something happened, so that people can look on and caches can forget what they know; none of them is the
truth. Whoever needs that asks the registry or the router, and goes on doing so while no events come.
"""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from toska_common.events.payload import EventPayload


class InstanceEvent(EventPayload):
    """What is said of an instance, whatever happened to it."""

    service: str
    instance_id: str
    address: str
    port: int
    health: str
    version: str = ""
    zone: str = ""
    region: str = ""
    tags: tuple[str, ...] = ()
    reason: str = Field(default="", description="Why, where somebody said so")


class InstanceRegistered(InstanceEvent, topic="mesh.instance.registered"):
    """An instance is listed that was not."""


class InstanceDeregistered(InstanceEvent, topic="mesh.instance.deregistered"):
    """An instance is listed no more: revoked, evicted, or removed after its lease lapsed."""


class InstanceUpdated(InstanceEvent, topic="mesh.instance.updated"):
    """An instance says something else of itself than before."""


class HealthChanged(InstanceEvent, topic="mesh.health.changed"):
    """An instance is well, or is not, and was otherwise before."""


INSTANCE_TOPICS = ("mesh.instance.*", HealthChanged)
"""What is said of instances."""


class RouteChanged(EventPayload, topic="mesh.route.changed"):
    """Somebody changed routing by the router's API."""

    revision: int = Field(description="Of the change in the router's history")
    routes: tuple[str, ...] = Field(default=(), description="Names of those that came, went or changed")
    clusters: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    actor: str = ""
    reason: str = ""


class BreakerEvent(EventPayload):
    """A circuit of one of a gateway's workers: each has its own."""

    gateway: str
    cluster: str
    before: str


class BreakerOpened(BreakerEvent, topic="mesh.breaker.opened"):
    """Nothing is sent there for a while."""


class BreakerHalfOpened(BreakerEvent, topic="mesh.breaker.half-opened"):
    """A few requests are let through, to see."""


class BreakerClosed(BreakerEvent, topic="mesh.breaker.closed"):
    """Traffic flows again."""


class RolloutChanged(EventPayload, topic="mesh.rollout.changed"):
    """Something became of a rollout: the line of its history."""

    name: str
    kind: str = Field(description="created, started, promoted, rolled_back, succeeded, …")
    step: int
    by: str
    reason: str = ""


class ExperimentChanged(EventPayload, topic="mesh.experiment.changed"):
    """A chaos experiment began or ended: the line of its history."""

    name: str
    kind: str
    by: str
    reason: str = ""


Group = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,256}$")]
OutdatedUrl = Annotated[str, StringConstraints(pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[\x21-\x7e]{1,8184}$")]
MAX_OUTDATED = 1000
"""Names of a kind in one event; who has more names a group that all of them are in."""


class ResponsesOutdated(EventPayload, topic="cache.responses.outdated"):
    """Responses that a service gave are out of date: gateways forget those of routes that say `forget_on_events`.

    Every service may publish it, and publishes it once the change is committed.
    """

    groups: tuple[Group, ...] = Field(
        default=(), max_length=MAX_OUTDATED, description="Those whose Cache-Groups (RFC 9875) name one of these"
    )
    urls: tuple[OutdatedUrl, ...] = Field(
        default=(), max_length=MAX_OUTDATED, description="As clients ask for them, with scheme, host and query"
    )
    routes: tuple[str, ...] = Field(default=(), max_length=MAX_OUTDATED, description="All that were given for a route")
    reason: str = ""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.groups or self.urls or self.routes):
            raise ValueError("name something that is out of date: groups, urls or routes")
        return self


INSTANCE_EVENTS: tuple[type[EventPayload], ...] = (
    InstanceRegistered,
    InstanceUpdated,
    InstanceDeregistered,
    HealthChanged,
)
"""Those of discovery."""
ROUTING_EVENTS: tuple[type[EventPayload], ...] = (RouteChanged, RolloutChanged, ExperimentChanged)
"""Those of the router."""
BREAKER_EVENTS: tuple[type[EventPayload], ...] = (BreakerOpened, BreakerHalfOpened, BreakerClosed)
"""Those of a gateway."""

MESH_EVENTS: tuple[type[EventPayload], ...] = (*INSTANCE_EVENTS, *ROUTING_EVENTS, *BREAKER_EVENTS)
"""Every type of them."""

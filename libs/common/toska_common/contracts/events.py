"""Events of the mesh itself, on topics `mesh.<noun>.<past-tense verb>`.

They tell that something happened, so that people can look on and caches can forget what they know; none of them is the
truth. Whoever needs that asks the registry or the router, and goes on doing so while no events come.
"""

from pydantic import Field

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


class RouteChanged(EventPayload, topic="mesh.route.changed"):
    """Routing is different: by the router's API, its file, or a service's metadata."""

    version: str = Field(description="Of the snapshot that gateways run from now on")
    routes: tuple[str, ...] = Field(default=(), description="Names of routes that came, went or changed")
    clusters: tuple[str, ...] = ()
    revision: int | None = Field(default=None, description="Of the change in the router's history")


class BreakerEvent(EventPayload):
    """A circuit of a gateway."""

    gateway: str
    cluster: str
    endpoint: str = ""


class BreakerOpened(BreakerEvent, topic="mesh.breaker.opened"):
    """A gateway sends nothing there for a while."""

    failure_ratio: float = 0.0


class BreakerClosed(BreakerEvent, topic="mesh.breaker.closed"):
    """Traffic flows again."""


class EndpointEjected(BreakerEvent, topic="mesh.endpoint.ejected"):
    """Live traffic gave a verdict on an endpoint."""

    consecutive_failures: int = 0


class EndpointReturned(BreakerEvent, topic="mesh.endpoint.returned"):
    """An ejected endpoint is tried again."""


class RolloutChanged(EventPayload, topic="mesh.rollout.changed"):
    """A rollout is in another phase, or at another step."""

    name: str
    route: str
    phase: str
    step: int | None = None
    percent: float | None = None
    reason: str = ""


class ExperimentChanged(EventPayload, topic="mesh.experiment.changed"):
    """A chaos experiment began or ended."""

    name: str
    phase: str
    reason: str = ""


MESH_EVENTS: tuple[type[EventPayload], ...] = (
    InstanceRegistered,
    InstanceDeregistered,
    InstanceUpdated,
    HealthChanged,
    RouteChanged,
    BreakerOpened,
    BreakerClosed,
    EndpointEjected,
    EndpointReturned,
    RolloutChanged,
    ExperimentChanged,
)
"""Every type of them."""

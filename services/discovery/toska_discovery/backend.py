"""What discovery's own REST API needs of a registry, whichever it is: the embedded one or a real Consul."""

from typing import Protocol

from toska_common.contracts.discovery import Heartbeat, Instance, Registration, ServiceSummary

REGISTRY_SERVICE = "consul"
"""The registry's own service in its catalog; no service of the mesh, so it is not listed."""


class Backend(Protocol):
    """A registry of instances. Unknown ids raise `UnknownInstance`."""

    async def register(self, registration: Registration) -> Instance:
        """List an instance as passing, in place of whoever has its id, or its address and port."""
        ...

    async def deregister(self, instance_id: str) -> None:
        """Take an instance off the list."""
        ...

    async def renew(self, instance_id: str) -> Heartbeat:
        """Take an instance for passing, for one more TTL."""
        ...

    async def get_instance(self, instance_id: str) -> Instance:
        """One instance."""
        ...

    async def list_services(self) -> list[ServiceSummary]:
        """Every service, by name."""
        ...

    async def list_instances(self, service: str) -> list[Instance]:
        """The instances of one service, by id; none if there is no such service."""
        ...

    async def services_touched_by(self, registration: Registration) -> set[str]:
        """Names of the services that a registration would change: its own, and those that it replaces."""
        ...


def id_of(registration: Registration) -> str:
    """The id of an instance that asks for none: the same address and port is the same instance again."""
    return registration.id or f"{registration.service}:{registration.address}:{registration.port}"


def lease_check_id(instance: str) -> str:
    """The id of the TTL check that is an instance's lease; what Consul calls an instance's only check."""
    return f"service:{instance}"


def summarise(instances: dict[str, list[Instance]]) -> list[ServiceSummary]:
    """Services by name, with their tags and how many instances are in which state."""
    return [
        ServiceSummary(
            name=name,
            tags=tuple(sorted({tag for member in members for tag in member.tags})),
            passing=sum(member.health == "passing" for member in members),
            warning=sum(member.health == "warning" for member in members),
            critical=sum(member.health == "critical" for member in members),
        )
        for name, members in sorted(instances.items())
        if name != REGISTRY_SERVICE
    ]

"""What discovery's own REST API needs of a registry, whichever it is: the embedded one or a real Consul."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from toska_common.contracts.discovery import Heartbeat, Instance, Registration, Report

from toska_discovery.member import Member

REGISTRY_SERVICE = "consul"
"""The registry's own service in its catalog; no service of the mesh, so it is not listed."""

MetaChange = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Makes an instance's metadata of what it is now; the same changes nothing."""


@dataclass(frozen=True, slots=True)
class Document:
    """A key's value, and the index that a compare-and-set of it takes."""

    value: bytes
    index: int


class Documents(Protocol):
    """What the mesh keeps beside the registry's own records: its keys and values."""

    async def find(self, key: str) -> Document | None:
        """One document, as it is now."""
        ...

    async def put(self, key: str, value: bytes, cas: int) -> bool:
        """Write a document if its index is still `cas` (0: if there is none)."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a document; one that is not there is fine."""
        ...


class Backend(Protocol):
    """A registry of instances. Unknown ids raise `UnknownInstance`."""

    @property
    def documents(self) -> Documents:
        """Its keys and values."""
        ...

    async def register(self, registration: Registration) -> Instance:
        """List an instance as passing, in place of whoever has its id, or its address and port."""
        ...

    async def deregister(self, instance_id: str) -> None:
        """Take an instance off the list."""
        ...

    async def renew(self, instance_id: str, report: Report | None = None) -> Heartbeat:
        """Take an instance for passing, for one more TTL."""
        ...

    async def get_member(self, instance_id: str) -> Member:
        """One instance."""
        ...

    async def list_members(self, service: str | None = None) -> list[Member]:
        """The instances of one service, by id, or of all but the registry's own; none if there is no such service."""
        ...

    async def amend(self, instance_id: str, change: MetaChange) -> Member:
        """Change an instance's metadata and nothing else of it."""
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

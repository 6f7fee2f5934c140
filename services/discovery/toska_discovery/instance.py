"""What is registered: instances with their checks, as immutable values.

A change makes a new `Instance`; whoever holds the old one keeps a consistent picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from ipaddress import ip_address

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check, worst
from toska_discovery.node import OWN_NODE


@dataclass(frozen=True)
class ServiceDefinition:
    """An instance as it is asked for: the part of a registration that makes two registrations equal.

    Attributes:
        address: Empty for the node's own.
        tagged_addresses: Address and port by tag, such as `wan`.
        weights: For traffic while passing, and while warning.
    """

    id: str
    name: str
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    tagged_addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    weights: tuple[int, int] = (1, 1)
    enable_tag_override: bool = False

    @cached_property
    def endpoint(self) -> tuple[str, int] | None:
        """What no two instances can hold at once: the address in one canonical form, and the port; `None` without."""
        if not self.port:
            return None
        return canonical_address(self.address), self.port


@dataclass(frozen=True, slots=True)
class Instance:
    """A registered instance with its checks, by check id.

    Attributes:
        node: Name of the node that it is on.
    """

    service: ServiceDefinition
    checks: Mapping[str, Check]
    registered_at: datetime
    create_index: int
    modify_index: int
    node: str = OWN_NODE

    @property
    def key(self) -> str:
        """What it alone has in the whole registry: its id, after its node where that is another."""
        return instance_key(self.service.id, self.node)

    @property
    def health(self) -> Health:
        """The worst verdict of its checks, those of its node aside."""
        return worst(check.status for check in self.checks.values())


def instance_key(instance_id: str, node: str) -> str:
    """The key of an instance; an id of the registry's own node is one by itself."""
    return f"{node}\x1f{instance_id}" if node else instance_id  # neither has control characters


def canonical_address(address: str) -> str:
    """One spelling for addresses that are the same; an empty one is the node's, which for us is this machine."""
    lowered = address.lower()
    if lowered in {"", "localhost"}:
        return "127.0.0.1"
    try:
        return str(ip_address(lowered))
    except ValueError:
        return lowered

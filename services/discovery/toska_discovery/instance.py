"""What is registered: instances and their checks, as immutable values.

A change makes a new `Instance`; whoever holds the old one keeps a consistent picture. What changes with every renewal
is not in here but in the lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from ipaddress import ip_address

from toska_common.contracts.discovery import Health

OUTPUT_MAX_BYTES = 4096
"""Longest output of a check that is kept; Consul's `check_output_max_size`."""

_SEVERITY = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class CheckDefinition:
    """A TTL check as it is asked for; equal if the catalog shows the same of both.

    Attributes:
        ttl_s: How long a report is good for.
        status: What it starts as.
        removal_after_s: How long it may be critical before its instance is removed; for ever if `None`.
    """

    id: str
    name: str
    ttl_s: float = field(compare=False)
    notes: str = ""
    status: Health = field(default=Health.CRITICAL, compare=False)
    removal_after_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Check:
    """A check and the verdict that the catalog shows.

    `output` is that of the report which brought the verdict. Later reports of the same verdict leave it as it is, so
    that a renewal changes nothing; Consul holds them back in the same way (`check_update_interval`).
    """

    definition: CheckDefinition
    status: Health
    output: str
    create_index: int
    modify_index: int


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
    """A registered instance with its checks, by check id."""

    service: ServiceDefinition
    checks: Mapping[str, Check]
    registered_at: datetime
    create_index: int
    modify_index: int

    @property
    def health(self) -> Health:
        """The worst verdict of its checks; passing without any, as Consul has it."""
        return max((check.status for check in self.checks.values()), key=_SEVERITY.__getitem__, default=Health.PASSING)


def canonical_address(address: str) -> str:
    """One spelling for addresses that are the same; an empty one is the node's, which for us is this machine."""
    lowered = address.lower()
    if lowered in {"", "localhost"}:
        return "127.0.0.1"
    try:
        return str(ip_address(lowered))
    except ValueError:
        return lowered


def bounded_output(output: str) -> str:
    """`output` as Consul keeps it: cut where it is too long, saying so."""
    encoded = output.encode()
    if len(encoded) <= OUTPUT_MAX_BYTES:
        return output
    kept = encoded[:OUTPUT_MAX_BYTES].decode(errors="ignore")
    return f"{kept} ... (captured {OUTPUT_MAX_BYTES} of {len(encoded)} bytes)"

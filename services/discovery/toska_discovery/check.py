"""Checks: what gives an instance or a node its verdict, as immutable values.

What changes with every renewal or probe is not in here but in the lease.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toska_common.contracts.discovery import Health

OUTPUT_MAX_BYTES = 4096
"""Longest output of a check that is kept; Consul's `check_output_max_size`."""

_SEVERITY = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}


class CheckKind(StrEnum):
    """Where a check's verdicts come from; the values are Consul's `Type`."""

    TTL = "ttl"
    """From whoever renews it."""
    HTTP = "http"
    TCP = "tcp"
    GRPC = "grpc"
    ALIAS = "alias"
    """From the checks of another instance or node."""
    SCRIPT = "script"
    MAINTENANCE = "maintenance"
    """From an operator: it is critical for as long as it exists."""
    EXTERNAL = ""
    """From whoever wrote it into the catalog."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask, and how, where nobody renews: the active half of a check.

    Attributes:
        target: URL of an HTTP check, `host:port` of TCP, `host:port[/service]` of gRPC; id of the instance that an
            alias follows, empty for that of a whole node.
        node: Of an alias: the node to follow, or that of the instance; empty for the registry's own.
        args: Of a script: its command line.
        method: Of an HTTP request, as are `header`, whose names may have several values, and `body`.
        tls: Whether gRPC goes through TLS; of HTTP the URL says so.
        success_before_passing: Good answers in a row that it takes to pass.
        failures_before_critical: Bad answers in a row that it takes to turn critical.
    """

    target: str = ""
    interval_s: float = 0.0
    timeout_s: float = 10.0
    method: str = "GET"
    header: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    body: str = ""
    tls: bool = False
    tls_skip_verify: bool = False
    args: tuple[str, ...] = ()
    node: str = ""
    success_before_passing: int = 0
    failures_before_critical: int = 0


@dataclass(frozen=True, slots=True)
class CheckDefinition:
    """A check as it is asked for; equal if the catalog shows the same of both.

    Attributes:
        ttl_s: How long a report is good for; only of TTL checks, and of all of them that somebody renews here.
        status: What it starts as.
        removal_after_s: How long it may be critical before its instance is removed; for ever if `None`.
        probe: Of the kinds that must be asked.
        output_max_bytes: Longest output that is kept.
        document: How it is probed, as whoever wrote it into the catalog says and as readers see it; `None` for nothing.
    """

    id: str
    name: str
    ttl_s: float | None = field(default=None, compare=False)
    notes: str = ""
    status: Health = field(default=Health.CRITICAL, compare=False)
    removal_after_s: float | None = field(default=None, compare=False)
    kind: CheckKind = CheckKind.TTL
    probe: Probe | None = field(default=None, compare=False)
    output_max_bytes: int = field(default=OUTPUT_MAX_BYTES, compare=False)
    document: Mapping[str, Any] | None = None


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


def worst(states: Iterable[Health]) -> Health:
    """The worst of several verdicts; passing if there is none, as Consul has it."""
    return max(states, key=_SEVERITY.__getitem__, default=Health.PASSING)


def bounded_output(output: str, limit: int) -> str:
    """`output` as Consul keeps it: cut where it is too long, saying so."""
    encoded = output.encode()
    if len(encoded) <= limit:
        return output
    kept = encoded[:limit].decode(errors="ignore")
    return f"{kept} ... (captured {limit} of {len(encoded)} bytes)"

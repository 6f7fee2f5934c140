"""Nodes: the machines that instances are on, as immutable values.

The registry's own node is the machine that it runs on, whose instances register themselves; others are only written
into the catalog, and nobody renews anything on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check, worst

OWN_NODE = ""
"""What the registry calls its own node: its name in the catalog may be another after a restart."""


@dataclass(frozen=True, slots=True)
class NodeDefinition:
    """A node as it is asked for.

    Attributes:
        tagged_addresses: Addresses by tag, such as `wan`; `None`, which readers see, if they were not given.
        meta: Likewise.
    """

    name: str
    address: str
    id: str = ""
    tagged_addresses: Mapping[str, str] | None = None
    meta: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node with the checks that are its own and no instance's, by check id.

    Attributes:
        checks_index: Index of the last change of those checks.
    """

    definition: NodeDefinition
    create_index: int
    modify_index: int
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    checks_index: int = 0

    @property
    def health(self) -> Health:
        """The worst verdict of its own checks, which all its instances share."""
        return worst(check.status for check in self.checks.values())


def node_key(name: str) -> str:
    """What a node that is not the registry's own is listed under: names are the same in any case of letters."""
    return name.lower()

"""Which nodes are to have the same resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toska_router.xds.exchange import Node

EVERYBODY = ""
"""The group of nodes that no rule names."""


@dataclass(frozen=True, slots=True)
class NodeRule:
    """Nodes of which everything that is given here is true belong to `group`.

    Attributes:
        group: Any name.
        id: Of the node, if not empty.
        cluster: The node's `cluster`, if not empty.
        metadata: Of the node's metadata: values by dotted path (`{"stage.name": "canary"}`).
    """

    group: str
    id: str = ""
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])

    def holds(self, node: Node) -> bool:
        """Whether it names this node."""
        if self.id and self.id != node.id:
            return False
        if self.cluster and self.cluster != node.cluster:
            return False
        return all(_at(node.metadata, path) == value for path, value in self.metadata.items())


def find_group(node: Node, rules: Sequence[NodeRule]) -> str:
    """The group of the first rule that names the node, else `EVERYBODY`."""
    return next((rule.group for rule in rules if rule.holds(node)), EVERYBODY)


def by_cluster(node: Node) -> str:
    """A group for each `node.cluster`."""
    return node.cluster


def _at(metadata: Mapping[str, object], path: str) -> object:
    found: object = metadata
    for key in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType] - of JSON
    return found  # pyright: ignore[reportUnknownVariableType] - of JSON

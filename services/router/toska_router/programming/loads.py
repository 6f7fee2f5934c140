"""What Envoys and gRPC's clients report to have sent: sums by cluster for people, and by endpoint for who selects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from toska_router.selection.figures import Place
from toska_router.xds import ClusterLoad, EndpointLoad, Node
from toska_router.xds.targets import PREFIX


class Counting(Protocol):
    """Who is told of endpoints."""

    def count(self, reporter: str, cluster: str, loads: Mapping[Place, tuple[int, int, int]]) -> None:
        """Take requests, failures and what is in flight, by address and port."""
        ...


@dataclass(slots=True)
class LoadSums:
    """Everything that was reported of a cluster since the router started."""

    requests: int = 0
    failures: int = 0
    dropped: int = 0


class LoadBook:
    """Takes reports.

    Args:
        counting: Who is told of endpoints.
    """

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._clusters: Collection[str] = ()
        self.sums: dict[str, LoadSums] = {}

    def follow(self, clusters: Collection[str]) -> None:
        """Keep what is of these clusters, and nothing else."""
        self._clusters = clusters
        self.sums = {name: sums for name, sums in self.sums.items() if name in clusters}

    def take(self, node: Node, peer: str, loads: Sequence[ClusterLoad]) -> None:
        """Take one report."""
        for load in loads:
            name = load.cluster.removeprefix(PREFIX)
            if name not in self._clusters:
                continue
            sums = self.sums.setdefault(name, LoadSums())
            sums.requests += load.requests
            sums.failures += load.failures
            sums.dropped += load.dropped
            if load.endpoints:
                self._counting.count(f"xds {node.id} {peer}", name, _by_place(load.endpoints))


def _by_place(loads: Iterable[EndpointLoad]) -> Mapping[Place, tuple[int, int, int]]:
    return {(load.address, load.port): (load.requests, load.failures, load.in_flight) for load in loads}

"""Which cluster takes a request while the one that it is for has too few endpoints that are well.

What a cluster carries follows from how many of its endpoints are well now, and from nothing else: no memory, no
threshold that a load swings about. What it does not carry goes to the next one, as far as that can, and so on; where
all of them together cannot carry everything, they share it in proportion. If none can carry anything, the first is as
good as any.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from toska_gateway.worker.cluster import Cluster

_KEYS: Final = float(1 << 64)


class Failover:
    """Who takes over from one cluster.

    Attributes:
        names: Of the other clusters, in order.
    """

    __slots__ = ("_enough", "_least", "names")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.names: tuple[str, ...] = tuple(settings["to"])
        self._enough: float = settings["below_percent"] / 100
        self._least: int = settings["min_endpoints"]

    def choose(self, cluster: "Cluster", others: Mapping[str, "Cluster"], key: int, now: float) -> "Cluster":
        """The cluster that takes a request for `cluster`.

        Args:
            cluster: Whose failover this is.
            others: By name.
            key: What `cluster.key_of` made of the request, so that the same ones spill over; without one, by chance.
            now: Monotonic seconds.
        """
        if self.capacity(cluster, now) >= 1.0:
            return cluster
        loads = self.loads(cluster, others, now)
        drawn = random.random() if cluster.key_of is None else key / _KEYS  # noqa: S311 - spreads load
        for one, load in loads:
            drawn -= load
            if drawn < 0:
                return one
        return loads[-1][0]

    def loads(self, cluster: "Cluster", others: Mapping[str, "Cluster"], now: float) -> list[tuple["Cluster", float]]:
        """Each cluster that takes requests for `cluster`, with its share; they come to 1."""
        found: list[tuple[Cluster, float]] = []
        left = 1.0
        for one in (cluster, *(others[name] for name in self.names if name in others)):
            load = min(left, self.capacity(one, now))
            if load > 0:
                found.append((one, load))
                left -= load
        if not found:
            return [(cluster, 1.0)]
        return [(one, load / (1.0 - left)) for one, load in found]

    def capacity(self, cluster: "Cluster", now: float) -> float:
        """The part of the whole load that a cluster carries with what is well of it, in [0, 1]."""
        if not cluster.well or (cluster.breaker is not None and not cluster.breaker.admits(now)):
            return 0.0
        return min(1.0, cluster.well / (len(cluster.endpoints) * self._enough), cluster.well / self._least)

"""Clusters that take over from others: Envoy's aggregate clusters, and the shares that follow from who is well.

Routes lead to an aggregate of a cluster and those that it fails over to, in their order. Envoy gives each of them what
it can carry of what is left: the part of its endpoints that is well, times an overprovisioning factor. That factor is
told with the endpoints, and with it the arithmetic is the contract's: of `n` endpoints `w` are well, and carry
`w / n * factor`, which is to be the smaller of `w / (n * below_percent)` and `w / min_endpoints`.

A fallback is an aggregate, too: of the cluster, whose factor is so large that it keeps everything while anybody is
well, and of the fallback, which the attempt after the last one goes to.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from toska_common.contracts.routing import Failover, Route, RouteTable
from toska_common.envoy.words import Json, extension

_FAILOVER: Final = "toska-failover-"
_FALLBACK: Final = "toska-fallback-"
_OF: Final = "~"
"""Stands between the fallback and the cluster in the name of an aggregate, and in no name of the contract's."""
_AGGREGATE: Final = ".clusters.aggregate.v3.ClusterConfig"
_PREVIOUS: Final = ".retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_MOST: Final = 1_000_000


class Chain(NamedTuple):
    """An aggregate: its name, the cluster that it stands for, and its members in the order in which they take over."""

    name: str
    cluster: str
    members: tuple[str, ...]


class Share(NamedTuple):
    """What a cluster carries: all of it while so many of its endpoints are well; a percentage of 0 is any of them."""

    below_percent: float
    min_endpoints: int

    def overprovisioning(self, endpoints: int) -> int:
        """Percent, of a cluster with so many endpoints."""
        by_percent = 100 / self.below_percent if self.below_percent else float("inf")
        return min(_MOST, max(1, round(100 * min(by_percent, endpoints / self.min_endpoints))))


Shares = Mapping[str, Share]
"""By cluster; those that share with nobody are not in it."""
_WHOLE: Final = Share(0, 1)


def led_to(name: str, route: Route, table: RouteTable) -> str:
    """The cluster of Envoy's that requests of a route for a cluster go to."""
    chain = find_chain(name, route, table)
    return name if chain is None else chain.name


def find_chain(name: str, route: Route, table: RouteTable) -> Chain | None:
    """Who takes over where a route leads to a cluster; refusals see to it that not both kinds are there."""
    cluster, fallback = table.clusters.get(name), route.policies.fallback
    if cluster is not None and cluster.failover is not None:
        return _failing_over(name, cluster.failover)
    if fallback is not None and fallback.cluster is not None and fallback.cluster != name:
        return Chain(f"{_FALLBACK}{fallback.cluster}{_OF}{name}", name, (name, fallback.cluster))
    return None


def _failing_over(name: str, rules: Failover) -> Chain:
    return Chain(f"{_FAILOVER}{name}", name, (name, *rules.to))


def chains_of(table: RouteTable) -> list[Chain]:
    """All of them, each once."""
    found = {chain.name: chain for route in table.routes for chain in chains_for(route, table)}
    return list(found.values())


def chains_for(route: Route, table: RouteTable) -> Iterator[Chain]:
    """Those of one route."""
    for part in route.to:
        chain = find_chain(part.cluster, route, table)
        if chain is not None:
            yield chain


def stands_for(name: str) -> str:
    """The cluster whose requests Envoy counts under a name."""
    if name.startswith(_FALLBACK):
        return name.partition(_OF)[2]
    return name.removeprefix(_FAILOVER)


def aggregate(chain: Chain) -> Json:
    """What an aggregate has that other clusters have otherwise."""
    return {
        "name": chain.name,
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": extension("envoy.clusters.aggregate", _AGGREGATE, clusters=[*chain.members]),
    }


def is_fallback(chain: Chain) -> bool:
    """Whether it is one of a fallback."""
    return chain.name.startswith(_FALLBACK)


def shares_of(table: RouteTable) -> Shares:
    """What each cluster carries that shares with others."""
    return {name: share for name, share, _ in _said(table)}


def disagreements(table: RouteTable) -> Iterator[tuple[str, str, str]]:
    """Clusters of which more than one share is said: its name, and who says so first and then otherwise."""
    first: dict[str, tuple[Share, str]] = {}
    for name, share, who in _said(table):
        before, by = first.setdefault(name, (share, who))
        if before != share:
            yield name, by, who


def _said(table: RouteTable) -> Iterator[tuple[str, Share, str]]:
    for name, cluster in table.clusters.items():
        if cluster.failover is not None:
            share = Share(cluster.failover.below_percent, cluster.failover.min_endpoints)
            for member in _failing_over(name, cluster.failover).members:
                yield member, share, f'the failover of cluster "{name}"'
    for route in table.routes:
        if route.policies.fallback is not None:
            for chain in chains_for(route, table):
                if is_fallback(chain):
                    yield chain.cluster, _WHOLE, f'the fallback of route "{route.name}"'


def elsewhere(route: Route, table: RouteTable) -> Json:
    """Part of a retry policy: whom further attempts go to.

    Where a cluster fails over that is another one than before, each time; to a fallback goes the very last.
    """
    chains = [*chains_for(route, table)]
    if not chains:
        return {}
    after = route.policies.retry.attempts if any(map(is_fallback, chains)) else 1
    return {
        "retry_priority": extension("envoy.retry_priorities.previous_priorities", _PREVIOUS, update_frequency=after)
    }

"""Joins what operators want with what the registry has, and publishes the result when it is different.

A change of the operators is published before their request is answered. The registry's changes come in bursts (a
deployment, a first look at everything), so they are gathered for a few milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import anyio
import structlog
from toska_common.contracts.router import RefusedOffer
from toska_common.contracts.routing import Cluster, ClusterEndpoints, RouteTable, Snapshot
from toska_common.routing.pools import EMPTY, pool, with_pools
from toska_common.routing.snapshot import build_snapshot
from toska_common.routing.tables import compare
from toska_common.routing.versions import table_version

from toska_router.compiler import Compiled, Wanted, compile_table
from toska_router.instances import Instances
from toska_router.offers import Offers
from toska_router.publisher import Publisher
from toska_router.sources import Sources

log = structlog.get_logger(__name__)

GATHERED_FOR = timedelta(milliseconds=3)


class Composer:
    """Keeps the publisher's snapshot in step; nothing is published before `open`.

    Attributes:
        is_open: Whether everything was seen: operators' routes, and the registry.
        overlay: What stands for operators' routes for a while: makes the table that gateways are given.
    """

    def __init__(self, instances: Instances, publisher: Publisher, sources: Sources) -> None:
        self._instances = instances
        self._publisher = publisher
        self._sources = sources
        self._exposed: frozenset[str] = frozenset()
        self._offered: Mapping[str, Sequence[str]] = {}
        self._offers = Offers()
        self._told: tuple[RefusedOffer, ...] = ()
        self._compiled = self._compile(sources)
        self._followers = _Followers()
        self._touched = anyio.Event()
        self.is_open = False
        self.overlay: Callable[[RouteTable], RouteTable] = lambda table: table

    @property
    def table(self) -> RouteTable:
        """The routes and clusters that hold now, also while no snapshot can be made of them yet."""
        return self._compiled.table

    @property
    def refused_offers(self) -> tuple[RefusedOffer, ...]:
        """What services ask for and do not get, as things are now."""
        return self._offers.resolve(self._sources.policies()).refused

    def compile(self, sources: Sources) -> RouteTable:
        """The table that these sources would make."""
        return self._compile(sources, self._compiled).table

    def _compile(self, sources: Sources, before: Compiled | None = None) -> Compiled:
        offered = self._offers.resolve(sources.policies()).routes
        return compile_table(Wanted(sources, self._exposed, offered), before)

    def open(self) -> None:
        """Publish from now on: the registry was seen whole."""
        if not self.is_open:
            self.is_open = True
            self.compose()

    def set_sources(self, sources: Sources) -> None:
        """Take over what operators want, at once."""
        self._sources = sources
        self._compiled = self._compile(sources, self._compiled)
        self._tell_refusals()
        self.compose()

    def touch(self) -> None:
        """Something about the instances is different."""
        self._touched.set()

    async def follow(self) -> None:
        """Compose after each burst of touches, for ever."""
        while True:
            await self._touched.wait()
            await anyio.sleep(GATHERED_FOR.total_seconds())
            self._touched = anyio.Event()
            self.compose()

    def compose(self) -> None:
        """Bring the snapshot up to date now."""
        exposed, offered = self._instances.exposed(), self._instances.offers()
        if exposed != self._exposed or offered != self._offered:
            self._exposed, self._offered = exposed, offered
            self._offers.take(offered)
            self._compiled = self._compile(self._sources, self._compiled)
            self._tell_refusals()
        if not self.is_open:
            return
        previous = self._publisher.snapshot
        snapshot = self._next(previous, self.overlay(self.table), self._instances.take_changed())
        if self._publisher.publish(snapshot):
            log.info(
                "snapshot_published",
                version=self._publisher.version,
                routes_changed=previous is None or previous.routes_version != snapshot.routes_version,
                waiting_gateways=self._publisher.waiting,
            )

    def _tell_refusals(self) -> None:
        refused = self.refused_offers
        for one in refused:
            if one not in self._told:
                log.warning("offered_routes_refused", service_name=one.service, reasons=one.reasons)
        self._told = refused

    def _next(self, previous: Snapshot | None, table: RouteTable, services: set[str]) -> Snapshot:
        """The snapshot of this table, while the endpoints of these services may be others."""
        pools, clusters = self._instances.pools(), table.clusters
        if previous is None:
            return build_snapshot(table, pools)
        changed = {name for name in compare(previous.table, table).clusters if name in clusters}
        followers = self._followers.of(table)
        changed.update(name for service in services for name in followers.get(service, ()))
        found = {name: _pool_of(clusters[name], pools) for name in changed}
        return with_pools(previous, table, table_version(table), found)


class _Followers:
    """Which clusters follow a service; as long as the clusters are the same it costs nothing to ask."""

    def __init__(self) -> None:
        self._clusters: Mapping[str, Cluster] = {}
        self._known: dict[str, list[str]] = {}

    def of(self, table: RouteTable) -> Mapping[str, Sequence[str]]:
        """The names of clusters by service."""
        if table.clusters is not self._clusters:
            self._clusters, self._known = table.clusters, {}
            for name, cluster in table.clusters.items():
                if cluster.service is not None:
                    self._known.setdefault(cluster.service, []).append(name)
        return self._known


def _pool_of(cluster: Cluster, pools: Mapping[str, ClusterEndpoints]) -> ClusterEndpoints:
    return pools.get(cluster.service, EMPTY) if cluster.service is not None else pool(cluster.endpoints)

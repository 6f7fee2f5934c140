"""Joins what operators want with what the registry has, and publishes the result when it is different.

A change of the operators is published before their request is answered. The registry's changes come in bursts (a
deployment, a first look at everything), so they are gathered for a few milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import anyio
import structlog
from toska_common.contracts.router import RefusedOffer
from toska_common.contracts.routing import RouteTable
from toska_common.routing.merging import Merger
from toska_common.routing.order import RouteOrder
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.routing.versions import ResourceVersions

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

    def __init__(
        self, instances: Instances, publisher: Publisher, sources: Sources, versions: ResourceVersions
    ) -> None:
        self._instances = instances
        self._publisher = publisher
        self._sources = sources
        self._exposed: frozenset[str] = frozenset()
        self._offered: Mapping[str, Sequence[str]] = {}
        self._offers = Offers()
        self._told: tuple[RefusedOffer, ...] = ()
        self._merger = Merger()
        self._order = RouteOrder()
        self._table = self.compile(sources)
        self._touched = anyio.Event()
        self.is_open = False
        self.versions = versions
        self.overlay: Callable[[RouteTable], RouteTable] = lambda table: table

    @property
    def table(self) -> RouteTable:
        """The routes and clusters that hold now, also while no snapshot can be made of them yet."""
        return self._table

    @property
    def refused_offers(self) -> tuple[RefusedOffer, ...]:
        """What services ask for and do not get, as things are now."""
        return self._offers.resolve(self._sources.document().policies).refused

    def compile(self, sources: Sources) -> RouteTable:
        """The table that these sources would make."""
        document = sources.document()
        return build_table(
            document,
            self._exposed,
            offered=self._offers.resolve(document.policies).routes,
            merger=self._merger,
            order=self._order,
        )

    def open(self) -> None:
        """Publish from now on: the registry was seen whole."""
        self.is_open = True
        self.compose()

    def set_sources(self, sources: Sources) -> None:
        """Take over what operators want, at once."""
        self._sources = sources
        self._table = self.compile(sources)
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
            self._table = self.compile(self._sources)
            self._tell_refusals()
        if not self.is_open:
            return
        previous = self._publisher.snapshot
        pools = self._instances.pools()
        version_table = self.versions.of_table
        snapshot = build_snapshot(self.overlay(self._table), pools, previous=previous, version_table=version_table)
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

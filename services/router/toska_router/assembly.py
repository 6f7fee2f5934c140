"""Puts a router's parts together: who asks whom, and who hears of whose changes. Nothing runs yet."""

from collections.abc import Collection

from toska_common.clock import Clock
from toska_common.database import Database

from toska_router.book import RoutesBook
from toska_router.composer import Composer
from toska_router.follower import RegistryFollower
from toska_router.gateways import Gateways
from toska_router.instances import Instances
from toska_router.last_good import LastGoodStore
from toska_router.parts import Parts
from toska_router.publisher import Publisher
from toska_router.routes_file import RoutesFile
from toska_router.runs.book import RunsBook
from toska_router.runs.overlays import Overlays
from toska_router.runs.store import RunsStore
from toska_router.runs.tallies import TallyInbox
from toska_router.selection.selector import Selector
from toska_router.settings import Settings
from toska_router.store import RoutesStore
from toska_router.taking_over import OldFile


def build_parts(settings: Settings, database: Database, clock: Clock) -> Parts:
    """Build the parts of one router.

    Raises:
        ConfigurationError: The routing file cannot be used.
    """
    store = RoutesStore(database, clock)
    folder = settings.home / "router"
    file = None if settings.routes is None else RoutesFile(settings.routes, LastGoodStore(folder))
    book = RoutesBook(store, file, OldFile(folder))
    instances = Instances(settings.registry_grace.total_seconds())
    publisher = Publisher(clock)
    composer = Composer(instances, publisher, book.sources)
    follower = RegistryFollower(
        instances,
        wanted=lambda: _followed(composer),
        on_change=composer.touch,
        on_complete=lambda: _open_when_all_is_known(parts),
        clock=clock,
    )
    runs = RunsBook(
        RunsStore(database),
        table=lambda: composer.table,
        revision=lambda: book.revision if composer.is_open else -1,
        is_own=lambda route: book.sources.source_of("route", route) == "api",
        clock=clock,
    )
    composer.overlay = Overlays(lambda: runs.runs).apply
    tallies = TallyInbox(runs.store, lambda: runs.runs.tokens)
    selector = Selector(publisher, instances.pools, clock)
    gateways = Gateways(publisher, clock)
    parts = Parts(book, composer, follower, publisher, gateways, store, runs, tallies, selector, file)
    book.on_change = lambda: _take_over_sources(parts)
    runs.on_change = lambda: _take_over_runs(parts)
    return parts


def _open_when_all_is_known(parts: Parts) -> None:
    if parts.book.is_open and parts.runs.is_open and parts.follower.complete:
        parts.composer.open()


def _take_over_runs(parts: Parts) -> None:
    parts.composer.compose()
    _open_when_all_is_known(parts)


def _take_over_sources(parts: Parts) -> None:
    before = parts.composer.table.clusters
    parts.composer.set_sources(parts.book.sources)
    if parts.composer.table.clusters is not before:
        parts.follower.reconcile()
    _open_when_all_is_known(parts)


def _followed(composer: Composer) -> Collection[str]:
    return {cluster.service for cluster in composer.table.clusters.values() if cluster.service is not None}

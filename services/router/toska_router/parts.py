"""What the router is made of, as its handlers see it."""

from dataclasses import dataclass

from toska_router.book import RoutesBook
from toska_router.composer import Composer
from toska_router.follower import RegistryFollower
from toska_router.gateways import Gateways
from toska_router.publisher import Publisher
from toska_router.routes_file import RoutesFile
from toska_router.runs.book import RunsBook
from toska_router.runs.tallies import TallyInbox
from toska_router.selection.selector import Selector
from toska_router.store import RoutesStore


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one router; `assembly` puts them together."""

    book: RoutesBook
    composer: Composer
    follower: RegistryFollower
    publisher: Publisher
    gateways: Gateways
    store: RoutesStore
    runs: RunsBook
    tallies: TallyInbox
    selector: Selector
    file: RoutesFile | None

"""Operators' routes and clusters as they are now: changed one at a time, on disk before they count.

A change is checked against the whole table, written, and only then taken over; whatever goes wrong before leaves
everything as it was, on disk and in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
from anyio.to_thread import run_sync
from toska_common.contracts.router import FileStatus
from toska_common.contracts.routing import Cluster, Route, RoutingDocument
from toska_common.errors import ConfigurationError, PreconditionFailed
from toska_common.routing.checks import check_document
from toska_common.routing.document import InvalidDocument
from toska_common.routing.versions import resource_version

from toska_router.routes_file import RoutesFile
from toska_router.sources import Sources
from toska_router.store import RoutesStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a caller takes the resource for (RFC 9110 §13.1): one of these versions; or, if `absent`, not there."""

    versions: frozenset[str] | None = None
    absent: bool = False

    def check(self, resource: Route | Cluster | None) -> None:
        """Let the caller pass if the resource is what it is taken for.

        Raises:
            PreconditionFailed: It is not; `version` says what it is.
        """
        version = "" if resource is None else resource_version(resource)
        if self.absent and resource is not None:
            raise PreconditionFailed("it is there already", version=version)
        if self.versions is None or (resource is not None and self.versions & {version, "*"}):
            return
        raise PreconditionFailed("it was changed since, or is not there", version=version)


ANY = Precondition()


class RoutesBook:
    """The sources, the file behind one of them and the store behind the other.

    Args:
        store: Where the API's changes go.
        file: The routing file, if there is one.

    Raises:
        ConfigurationError: What is there at the start cannot be used; every problem is named.
    """

    def __init__(self, store: RoutesStore, file: RoutesFile | None) -> None:
        self._store = store
        self._file = file
        self._changing = anyio.Lock()
        own = store.load()
        self._sources = Sources(RoutingDocument() if file is None else file.open(own), own)
        _require_whole(self._sources.document())
        self.on_change: Callable[[], None] = lambda: None

    @property
    def sources(self) -> Sources:
        """What holds now."""
        return self._sources

    @property
    def file_status(self) -> FileStatus | None:
        """How the routing file is, if there is one."""
        return None if self._file is None else self._file.status

    async def put_route(self, route: Route, precondition: Precondition = ANY) -> bool:
        """Add or replace one of the API's routes; tells whether it is new. Raises as `Sources.with_route`."""
        async with self._changing:
            before = self._sources.find_route(route.name)
            precondition.check(before)
            await self._take_over(self._sources.with_route(route))
            return before is None

    async def delete_route(self, name: str, precondition: Precondition = ANY) -> None:
        """Take one of the API's routes away; raises as `Sources.without_route`."""
        async with self._changing:
            after = self._sources.without_route(name)
            precondition.check(self._sources.find_route(name))
            await self._take_over(after)

    async def put_cluster(self, name: str, cluster: Cluster, precondition: Precondition = ANY) -> bool:
        """Add or replace one of the API's clusters; tells whether it is new. Raises as `Sources.with_cluster`."""
        async with self._changing:
            before = self._sources.find_cluster(name)
            precondition.check(before)
            await self._take_over(self._sources.with_cluster(name, cluster))
            return before is None

    async def delete_cluster(self, name: str, precondition: Precondition = ANY) -> None:
        """Take one of the API's clusters away; raises as `Sources.without_cluster`."""
        async with self._changing:
            after = self._sources.without_cluster(name)
            precondition.check(self._sources.find_cluster(name))
            await self._take_over(after)

    async def reload_file(self) -> None:
        """Read the routing file again; a bad one changes nothing but its status."""
        if self._file is None:
            return
        async with self._changing:
            own = self._sources.own
            try:
                document = await run_sync(self._file.read, own)
            except InvalidDocument as error:
                self._file.refuse(error)
                return
            if document != self._sources.file:
                self._sources = Sources(document, own)
                log.info("routes_file_loaded", routes=len(document.routes), clusters=len(document.clusters))
                self.on_change()

    async def _take_over(self, after: Sources) -> None:
        if after.own == self._sources.own:
            return
        # A caller that gives up must not leave a change on disk that does not hold in memory.
        with anyio.CancelScope(shield=True):
            await run_sync(partial(self._store.save, after.own))
        self._sources = after
        if self._file is not None:
            self._file.look_again()
        self.on_change()


def _require_whole(document: RoutingDocument) -> None:
    findings = check_document(document.routes, document.clusters)
    if findings:
        reasons = "; ".join(finding.reason for finding in findings)
        raise ConfigurationError(
            f"the stored routes do not fit together; is TOSKA_ROUTER_ROUTES set as before? {reasons}"
        )

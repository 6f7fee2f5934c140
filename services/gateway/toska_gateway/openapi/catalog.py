"""The documents of all services of the mesh, kept fresh in the background, and what is built of them.

    asked ──▶ refresh: who is reached by a route? who offers a document? fetch what is new ──▶ build ──▶ view
                                          └──fails──▶ the last one stays (stale), tried again later

Nothing is fetched unless somebody asks, the routes change, or events say that something became of a service; and a
question waits only briefly: it is answered with the view there is.
"""

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
import structlog
from anyio import to_thread
from toska_common import __version__
from toska_common.contracts.gateway import ServiceDocument
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.contracts.routing import Snapshot
from toska_common.errors import MeshError, NotFound, UpstreamUnavailable

from toska_gateway.openapi.fetch import TIMEOUT, parse_document
from toska_gateway.openapi.merge import merge_fragments
from toska_gateway.openapi.parts import DocumentRefused
from toska_gateway.openapi.reach import Reach
from toska_gateway.openapi.rewrite import FindPath, Fragment, rewrite_document
from toska_gateway.openapi.sources import DocumentSource, NoDocument, Offer
from toska_gateway.routing import Routing

log = structlog.get_logger(__name__)

TITLE: Final = "Toska Mesh"
MAX_SERVICES: Final = 500
MAX_TOTAL_BYTES: Final = 32 * 2**20
_AT_ONCE: Final = 8
_FRESH_S: Final = 0.5
"""A question asks for no refresh if the last one is younger."""
_REFETCH_S: Final = 60.0
_RETRY_S: Final = 10.0
_REST_S: Final = 0.0002
"""After a look at the routes, for each of them, until a change of theirs alone is looked at: a look at 10,000 takes a
tenth of a second. A question does not wait for it."""
_PATIENCE_S: Final = 4.0
_PATIENCE_WITH_VIEW_S: Final = 0.5
_NEVER: Final = float("-inf")


@dataclass(slots=True)
class _Entry:
    """What is known of one service's document."""

    content: bytes = b""
    key: Hashable = None
    fetched_at: float = 0.0
    tried_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _View:
    """What the documents came to, by the routes of one snapshot."""

    routes_version: str
    revision: int
    merged: bytes
    services: tuple[ServiceDocument, ...]
    single: dict[str, bytes] = field(default_factory=dict[str, bytes])


class ApiCatalog:
    """Answers for the API of the whole mesh.

    Args:
        routing: The routes that decide what is reached.
        services: Source of users' services.
        mesh: Source of the mesh's own.
        open_reads: Whether reading from the mesh's own APIs needs no token.
    """

    def __init__(self, routing: Routing, services: DocumentSource, mesh: DocumentSource, *, open_reads: bool) -> None:
        self._routing = routing
        self._services = services
        self._mesh = mesh
        self._open_reads = open_reads
        self._entries: dict[str, _Entry] = {}
        self._revision = 0
        self._view: _View | None = None
        self._refreshed_at = _NEVER
        self._reach: Reach | None = None
        self._reach_version = ""
        self._heard_of: set[str] = set()
        self._everything = False
        self._asked = anyio.Event()
        self._wanted = anyio.Event()
        self._done = anyio.Event()

    def refresh_soon(self, _: Snapshot | None = None) -> None:
        """Have `run` look for new documents; for changes of the routes."""
        self._everything = True
        self._wanted.set()

    def hear_of(self, service: str) -> None:
        """Something became of a service: the next look is at this one too, if a route leads to it."""
        if self._reach is None or not self._reach.reaches(service):
            return
        self._heard_of.add(service)
        entry = self._entries.get(service)
        # Others' instances tell by themselves whether the document may be another one.
        if entry is not None and (entry.problem or _is_mesh(service)):
            entry.tried_at = entry.fetched_at = _NEVER

    def look_at_heard(self) -> None:
        """Have `run` look for the documents of the services that something was heard of."""
        if self._heard_of:
            self._wanted.set()

    async def run(self) -> None:
        """Refresh whenever asked, for ever."""
        rest_s = 0.0
        while True:
            await self._wanted.wait()
            with anyio.move_on_after(rest_s):
                await self._asked.wait()
            self._asked, self._wanted = anyio.Event(), anyio.Event()
            heard_of, self._heard_of = self._heard_of, set()
            everything, self._everything = self._everything, False
            await self._refresh(None if everything else heard_of)
            if everything:
                self._refreshed_at = anyio.current_time()
            rest_s = _REST_S * len(self._routing.served.table.routes)
            done, self._done = self._done, anyio.Event()
            done.set()

    async def merged(self) -> bytes:
        """The document over all services."""
        return (await self._current()).merged

    async def list_services(self) -> tuple[ServiceDocument, ...]:
        """Every service that has operations here, or should."""
        return (await self._current()).services

    async def single(self, service: str) -> bytes:
        """The document of one service, under its own names.

        Raises:
            NotFound: No route leads to such a service, or it has no document.
        """
        view = await self._current()
        listed = next((item for item in view.services if item.service == service), None)
        if listed is None or listed.state == "missing":
            reason = listed.problem if listed else "no route leads to a service of this name that offers a document"
            raise NotFound(f"there is no OpenAPI document of {service}: {reason}", service=service)
        content = view.single.get(service)
        if content is None:
            entry = self._entries.get(service, _Entry())
            reach = Reach(self._routing.served.table)
            content = await to_thread.run_sync(_build_single, service, entry.content, reach, self._open_reads)
            view.single[service] = content
        return content

    async def _current(self) -> _View:
        view = self._view
        up_to_date = view is not None and view.routes_version == self._routing.served.routes_version
        if not up_to_date or anyio.current_time() - self._refreshed_at > _FRESH_S:
            done = self._done
            self._everything = True
            self._asked.set()
            self._wanted.set()
            with anyio.move_on_after(_PATIENCE_WITH_VIEW_S if up_to_date else _PATIENCE_S):
                await done.wait()
        if self._view is None:
            raise UpstreamUnavailable("the services' documents are still being fetched; try again in a moment")
        return self._view

    # Refreshing.

    async def _refresh(self, only: set[str] | None) -> None:
        """Look for documents: of every service, or of these."""
        served = self._routing.served
        reach = self._reach
        if reach is None or self._reach_version != served.routes_version:
            reach = self._reach = await to_thread.run_sync(Reach, served.table)
            self._reach_version = served.routes_version
        services = sorted(reach.services())[:MAX_SERVICES]
        for gone in self._entries.keys() - set(services):
            del self._entries[gone]
            self._revision += 1
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            for service in services if only is None else sorted(only.intersection(services)):
                group.start_soon(self._refresh_entry, service, limiter)
        view = self._view
        if view is None or (view.routes_version, view.revision) != (served.routes_version, self._revision):
            entries = {service: self._entries[service] for service in services if service in self._entries}
            self._view = await to_thread.run_sync(
                _build, served.routes_version, self._revision, entries, reach, self._open_reads
            )

    async def _refresh_entry(self, service: str, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            source = self._mesh if _is_mesh(service) else self._services
            try:
                offer = await source.find(service)
            except NoDocument:
                self._revision += self._entries.pop(service, None) is not None
                return
            except MeshError as error:
                self._fail(service, error.detail)
                return
            entry = self._entries.setdefault(service, _Entry())
            if self._is_due(entry, offer):
                await self._fetch(service, entry, offer, source)

    def _is_due(self, entry: _Entry, offer: Offer) -> bool:
        now = anyio.current_time()
        if entry.key != offer.key:
            return True
        if entry.problem:
            return now - entry.tried_at > _RETRY_S
        return now - entry.fetched_at > _REFETCH_S

    async def _fetch(self, service: str, entry: _Entry, offer: Offer, source: DocumentSource) -> None:
        entry.key, entry.tried_at = offer.key, anyio.current_time()
        try:
            with anyio.fail_after(TIMEOUT.total_seconds()):
                content = await source.fetch(offer)
            self._check_total(service, len(content))
            await to_thread.run_sync(_check, service, content)
        except TimeoutError:
            self._fail(service, f"no answer within {TIMEOUT.total_seconds():g} s")
            return
        except MeshError as error:
            self._fail(service, error.detail)
            return
        if entry.content != content or entry.problem:
            self._revision += 1
        entry.content, entry.fetched_at, entry.problem = content, anyio.current_time(), ""

    def _fail(self, service: str, problem: str) -> None:
        """Note why a document cannot be had; the last one stays."""
        entry = self._entries.setdefault(service, _Entry())
        if entry.problem != problem:
            log.warning("openapi_document_unavailable", of=service, reason=problem, stale=bool(entry.content))
            entry.problem = problem
            self._revision += 1

    def _check_total(self, service: str, size: int) -> None:
        others = sum(len(entry.content) for name, entry in self._entries.items() if name != service)
        if others + size > MAX_TOTAL_BYTES:
            raise DocumentRefused(f"the documents of all services would come to more than {MAX_TOTAL_BYTES} bytes")


def _is_mesh(service: str) -> bool:
    return service.startswith(RESERVED_PREFIX)


# Parsing and building run in a thread: a document of the largest size takes tenths of a second.


def _check(service: str, content: bytes) -> None:
    """Make sure that a document can be merged, whatever the routes are.

    Raises:
        UpstreamError: It cannot.
    """
    fragment = _rewrite(service, content, lambda _, path: path, apart=True)
    try:
        json.dumps([fragment.paths, fragment.components, fragment.tags], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise DocumentRefused("the document is nested too deeply") from error


def _rewrite(service: str, content: bytes, find_path: FindPath, *, apart: bool) -> Fragment:
    try:
        return rewrite_document(service, parse_document(content), find_path, apart=apart)
    except MeshError:
        raise
    except Exception as error:
        # The document is anybody's: what it makes us stumble over must not take the gateway down.
        log.exception("openapi_document_unforeseen", of=service)
        raise DocumentRefused("the document is of a kind that nobody foresaw; this is a bug of the mesh") from error


def _find_fragment(service: str, entry: _Entry, reach: Reach) -> Fragment | None:
    if not entry.content:
        return None
    try:
        return _rewrite(service, entry.content, partial(reach.find_path, service), apart=True)
    except MeshError as error:
        entry.problem = error.detail
        return None


def _build(routes_version: str, revision: int, entries: dict[str, _Entry], reach: Reach, open_reads: bool) -> _View:
    # Users' services come first; the mesh's own are what they came through.
    order = sorted(entries, key=lambda service: (_is_mesh(service), service))
    found = {service: _find_fragment(service, entries[service], reach) for service in order}
    fragments = {service: fragment for service, fragment in found.items() if fragment is not None}
    return _View(
        routes_version=routes_version,
        revision=revision,
        merged=_encode(fragments.values(), TITLE, __version__, open_reads),
        services=tuple(_describe(service, entries[service], fragments.get(service)) for service in order),
    )


def _build_single(service: str, content: bytes, reach: Reach, open_reads: bool) -> bytes:
    fragment = _rewrite(service, content, partial(reach.find_path, service), apart=False)
    return _encode([fragment], fragment.title, fragment.version or "0", open_reads)


def _encode(fragments: Iterable[Fragment], title: str, version: str, open_reads: bool) -> bytes:
    given = list(fragments)
    mesh = {fragment.service for fragment in given if _is_mesh(fragment.service)}
    merged: Any = merge_fragments(given, title=title, version=version, mesh=mesh, open_reads=open_reads)
    return json.dumps(merged, separators=(",", ":"), allow_nan=False).encode()


def _describe(service: str, entry: _Entry, fragment: Fragment | None) -> ServiceDocument:
    return ServiceDocument(
        service=service,
        url=f"/api/v1/openapi/{service}",
        state="missing" if fragment is None else "stale" if entry.problem else "fresh",
        title=fragment.title if fragment else "",
        version=fragment.version if fragment else "",
        operations=sum(1 for _ in fragment.operations()) if fragment else 0,
        problem=entry.problem,
        mesh=_is_mesh(service),
    )

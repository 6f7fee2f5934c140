"""Operators' routes, clusters and policies as they are now: changed in transactions, in the database before they count.

    closed ──open──▶ open ◀──▶ following what other routers over the same database change
               │
               └── the database does not answer: tried again; nothing is published before it has

A change is made on top of what all routers have made of it until then, checked against the whole table, written, and
only then taken over; whatever goes wrong before leaves everything as it was. While the database is away, what is known
goes on and changes are refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import anyio
import structlog
from anyio.to_thread import run_sync
from toska_common.contracts.router import DocumentProblem, FileStatus
from toska_common.contracts.routing import RoutingDocument
from toska_common.database import DatabaseUnavailable
from toska_common.errors import ConfigurationError
from toska_common.routing.document import InvalidDocument
from toska_common.routing.problems import Finding, format_location

from toska_router.documents import Change, apply, by_kind, changes_between, is_same
from toska_router.routes_file import RoutesFile
from toska_router.sources import Sources, find_problems, find_problems_of
from toska_router.store import RoutesStore
from toska_router.stored import Author, News, Stored
from toska_router.taking_over import OldFile

log = structlog.get_logger(__name__)

PATIENCE, PATIENCE_EACH = timedelta(seconds=5), timedelta(milliseconds=1)
"""How long a change may take before it is given up, and how much longer for each resource that it is of."""
CERTAIN_AFTER = timedelta(seconds=5)
"""How long a change of another router can go unseen whose signal was lost."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0

Propose = Callable[[Sources], Sequence[Change]]
"""What is to be changed, decided on what holds in the very moment; raises what speaks against it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change came to, or would."""

    before: Sources
    after: Sources
    changes: Sequence[Change]
    revision: int


class RoutesBook:
    """The sources, the file behind one of them and the store behind the other.

    Args:
        store: Where the API's changes go.
        file: The routing file, if there is one.
        old_file: Where older releases had what the store has.
    """

    def __init__(self, store: RoutesStore, file: RoutesFile | None, old_file: OldFile) -> None:
        self._store = store
        self._file = file
        self._old_file = old_file
        self._changing = anyio.Lock()
        self._stored = Stored()
        self._sources = Sources()
        self._problems: tuple[DocumentProblem, ...] = ()
        self._news = anyio.Event()
        self.outage = ""
        self.is_open = False
        self.on_change: Callable[[], None] = lambda: None
        self.on_made: Callable[[Outcome, Author], None] = lambda _outcome, _author: None

    @property
    def sources(self) -> Sources:
        """What holds now."""
        return self._sources

    @property
    def revision(self) -> int:
        """The newest revision that is known."""
        return self._stored.revision

    @property
    def problems(self) -> tuple[DocumentProblem, ...]:
        """Why the newest revision does not hold here: another router made it, and it does not fit the routing file."""
        return self._problems

    @property
    def file_status(self) -> FileStatus | None:
        """How the routing file is, if there is one."""
        return None if self._file is None else self._file.status

    async def open(self) -> None:
        """Read what there is.

        Raises:
            ConfigurationError: It cannot be used; every problem is named.
            DatabaseUnavailable: The database does not answer.
        """
        async with self._changing:
            stored = await self._take_over_old_file(await self._store.load())
            file = RoutingDocument() if self._file is None else self._file.open(stored.own)
            _require_whole(file, stored.own)
            self._stored, self._sources = stored, Sources(file, stored.own)
            self.is_open = True
        self.on_change()

    async def follow(self) -> None:
        """Stay in step with the database, for ever: open it if it was away, and take over what others change."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._store.watch, self._note_news)
            pause = _FIRST_PAUSE_S
            while True:
                if self.is_open:
                    with anyio.move_on_after(CERTAIN_AFTER.total_seconds()):
                        await self._news.wait()
                try:
                    await self._catch_up()
                except DatabaseUnavailable as error:
                    self._note_outage(error.detail)
                    self._note_news()
                    await anyio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_S)
                else:
                    self.outage, pause = "", _FIRST_PAUSE_S

    async def change(self, propose: Propose, author: Author) -> Outcome:
        """Make a change, on top of what every router has made.

        Raises:
            DatabaseUnavailable: The database does not answer. If it went away in the moment of the commit, the change
                may have been made, whole; else nothing was.
            MeshError: What `propose` or `Sources.with_changes` raises; nothing was changed.
        """
        # A caller that gives up must not leave a change in the database that does not hold in memory.
        outcome = await _to_the_end(self._change_in_time, propose, author)
        if outcome.changes:
            self.on_made(outcome, author)
        return outcome

    async def preview(self, propose: Propose) -> Outcome:
        """What a change would come to, on what is known here; nothing is written."""
        self._require_open()
        before = Sources(self._sources.file, self._stored.own)
        changes = _of_effect(before, propose(before))
        return Outcome(before, before.with_changes(changes), changes, self._stored.revision)

    async def reload_file(self) -> None:
        """Read the routing file again; a bad one changes nothing but its status."""
        if self._file is None or not self.is_open:
            return
        async with self._changing:
            own = self._stored.own
            try:
                document = await run_sync(self._file.read, own)
            except InvalidDocument as error:
                self._file.refuse(error)
                return
            self._problems = ()
            self._sources = Sources(document, own)
            log.info("routes_file_loaded", routes=len(document.routes), clusters=len(document.clusters))
            self.on_change()

    async def _change_in_time(self, propose: Propose, author: Author) -> Outcome:
        await self._store.prepare()
        try:
            with anyio.fail_after(PATIENCE.total_seconds()) as scope:
                async with self._changing:
                    self._require_open()
                    return await self._change(propose, author, scope)
        except (DatabaseUnavailable, TimeoutError) as error:
            late = f"the database did not answer within {PATIENCE.total_seconds():g} s"
            self._note_outage(error.detail if isinstance(error, DatabaseUnavailable) else late)
            self._note_news()
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable(late) from error
            raise
        raise AssertionError("a deadline that passes is raised")

    async def _change(self, propose: Propose, author: Author, scope: anyio.CancelScope) -> Outcome:
        async with self._store.changing(self._stored.revision) as transaction:
            stored = await self._apply(transaction.news)
            before = Sources(self._sources.file, stored.own)
            changes = _of_effect(before, propose(before))
            after = before.with_changes(changes)
            scope.deadline += PATIENCE_EACH.total_seconds() * len(changes)
            revision = await transaction.append(changes, author) if changes else stored.revision
        self._adopt(Stored(revision, after.own), transaction.news.changes)  # our own were checked on top of them
        return Outcome(before, after, changes, revision)

    async def _catch_up(self) -> None:
        if not self.is_open:
            await self.open()
        self._news, known = anyio.Event(), self._stored
        news = await self._store.news_since(
            known.revision
        )  # without the lock: it may take long to find out that it cannot
        async with self._changing:
            if self._stored is not known:
                self._note_news()  # changed by ourselves meanwhile: look again
            elif news.revision != known.revision:
                self._adopt(await self._apply(news), news.changes)

    async def _apply(self, news: News) -> Stored:
        if news.revision < self._stored.revision:
            # Another database than it was, such as one that was restored: nothing that is known of it holds.
            log.warning("database_went_back", revision=self._stored.revision, newest=news.revision)
            return await self._store.load()
        return Stored(news.revision, apply(self._stored.own, news.changes))

    def _adopt(self, stored: Stored, changes: Sequence[Change]) -> None:
        file, went_back = self._sources.file, stored.revision < self._stored.revision
        whole = went_back or bool(self._problems)
        findings = find_problems(file, stored.own) if whole else find_problems_of(changes, file, stored.own)
        self._stored = stored
        if findings:
            self._refuse(findings)
            return
        self._problems = ()
        if self._file is not None:
            self._file.look_again()
        if stored.own is not self._sources.own:
            self._sources = Sources(file, stored.own)
            self.on_change()

    def _refuse(self, findings: Sequence[Finding]) -> None:
        self._problems = tuple(
            DocumentProblem(field=format_location(finding.location), reason=finding.reason) for finding in findings
        )
        reasons = [finding.reason for finding in findings]
        log.error("revision_does_not_fit_the_routes_file", revision=self._stored.revision, problems=reasons)

    async def _take_over_old_file(self, stored: Stored) -> Stored:
        old = await run_sync(self._old_file.read)
        if old is None:
            return stored
        if stored.revision:
            self._old_file.keep_aside(taken_over=False)
            return stored
        file = RoutingDocument() if self._file is None else self._file.open(old)
        _require_whole(file, old)
        changes = changes_between(stored.own, old)
        if changes:
            async with self._store.changing(0) as transaction:
                if transaction.news.revision:  # another router was faster
                    return await self._store.load()
                await transaction.append(changes, Author(source="import"))
            stored = Stored(1, apply(stored.own, changes))
        self._old_file.keep_aside(taken_over=True)
        return stored

    def _require_open(self) -> None:
        if not self.is_open:
            raise DatabaseUnavailable(f"the database was not reached since the router started: {self.outage}")

    def _note_news(self) -> None:
        self._news.set()

    def _note_outage(self, reason: str) -> None:
        if not self.outage:
            log.error("database_lost", reason=reason)
        self.outage = reason


async def _to_the_end(
    function: Callable[[Propose, Author], Awaitable[Outcome]], propose: Propose, by: Author
) -> Outcome:
    with anyio.CancelScope(shield=True):
        return await function(propose, by)
    raise AssertionError("a scope that nobody cancels ends with its block")


def _of_effect(sources: Sources, changes: Sequence[Change]) -> list[Change]:
    """Those that change something; what is taken away stays, so that its absence is told."""
    had = by_kind(sources.own)
    last = {(change.kind, change.name): change.resource for change in changes}
    return [
        change
        for change in changes
        if change.resource is None or not is_same(had[change.kind].get(change.name), last[change.kind, change.name])
    ]


def _require_whole(file: RoutingDocument, own: RoutingDocument) -> None:
    findings = find_problems(file, own)
    if findings:
        reasons = "; ".join(finding.reason for finding in findings)
        raise ConfigurationError(
            f"the stored routes do not fit together; is TOSKA_ROUTER_ROUTES set as before? {reasons}"
        )

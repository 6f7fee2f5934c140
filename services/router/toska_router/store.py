"""What the API has, in the database: what holds now, and every revision that led there.

Until something is stored there is no database, and then SQLAlchemy is not loaded. What may be changed is decided by
`Sources`; here a change is written whole, with who made it, or not at all.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from toska_common.clock import Clock
from toska_common.contracts.revisions import Kind, ResourceRevision, Revision
from toska_common.contracts.routing import RoutingDocument
from toska_common.database import Database

from toska_router.documents import Change
from toska_router.stored import Author, News, Stored

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

MIGRATIONS = "toska_router.migrations"


class Transaction:
    """A change being made, while nobody else makes one: `news` is what others have changed until now."""

    def __init__(self, connection: "AsyncConnection", statements: Any, clock: Clock, news: News) -> None:
        self._connection = connection
        self._statements = statements
        self._clock = clock
        self.news = news

    async def append(self, changes: Sequence[Change], author: Author) -> int:
        """Write the next revision, and return its number; it counts when the transaction ends well."""
        revision = self.news.revision + 1
        await self._statements.append(self._connection, revision, changes, author, self._clock.now())
        return revision


class RoutesStore:
    """Routes, clusters and policies of the API, in a database that other routers may share.

    Every method raises `DatabaseUnavailable` if the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._loaded: Any = None

    @property
    def place(self) -> str:
        """Where the database is, without its password."""
        return str(self._database.location)

    async def prepare(self) -> None:
        """Load what reaches the database, which a deadline for the database itself should not count."""
        await self._database.load()
        await self._statements()

    async def load(self) -> Stored:
        """Everything that holds now."""
        if self._database.is_absent():
            return Stored()
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.load(connection)

    async def news_since(self, revision: int) -> News:
        """What has changed since `revision`; a smaller revision than that if the database is another than it was."""
        if self._database.is_absent():
            return News(0)
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.news_since(connection, revision)

    @asynccontextmanager
    async def changing(self, since: int) -> AsyncGenerator[Transaction]:
        """A transaction that excludes all others, with what they have changed since the revision `since`."""
        statements = await self._statements()
        async with self._database.writing() as connection:
            news = await statements.news_since(connection, since)
            yield Transaction(connection, statements, self._clock, news)

    async def list_revisions(self, limit: int, before: int | None = None) -> list[Revision]:
        """Revisions before `before`, the newest first."""
        if self._database.is_absent():
            return []
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.list_revisions(connection, limit, before)

    async def list_versions(
        self, kind: Kind, name: str, limit: int, before: int | None = None
    ) -> list[ResourceRevision]:
        """What revisions before `before` left of one resource, the newest first."""
        if self._database.is_absent():
            return []
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.list_versions(connection, kind, name, limit, before)

    async def state_at(self, revision: int) -> RoutingDocument | None:
        """What held after `revision`; `None` if that is not known any more, or not yet."""
        if self._database.is_absent():
            return RoutingDocument() if revision == 0 else None
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.state_at(connection, revision)

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever there may be news, for ever."""
        await self._database.watch(on_change)

    async def _statements(self) -> Any:
        if self._loaded is None:
            # In a thread: it brings SQLAlchemy, which takes long enough to keep the event loop waiting.
            self._loaded = await run_sync(import_module, "toska_router.statements")
        return self._loaded

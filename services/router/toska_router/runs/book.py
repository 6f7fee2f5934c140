"""Rollouts and experiments as they are now: changed in transactions, and followed as others change them.

    closed ──open──▶ open ◀──▶ following what other routers over the same database do

Nothing is published before the database has answered: without what it knows, a canary's traffic would jump.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import structlog
from toska_common.clock import Clock
from toska_common.contracts.routing import RouteTable
from toska_common.database import DatabaseUnavailable
from toska_common.errors import NotFound, PreconditionFailed

from toska_router.runs.store import Runs, RunsStore, RunsTransaction

log = structlog.get_logger(__name__)

R = TypeVar("R")
Check = Callable[[str], None]
"""Raises `PreconditionFailed` unless the version (empty: it is not there) is what the caller takes it for."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0


class RunsBook:
    """What there is.

    Args:
        store: Where it is kept.
        table: Operators' routes and clusters as they are now.
        revision: The newest revision of the routes that `table` has; negative before it has any.
        is_own: Whether a route is the API's, which may be changed.
        clock: Gives timestamps.

    Attributes:
        on_change: Called when something is different.
    """

    def __init__(
        self,
        store: RunsStore,
        table: Callable[[], RouteTable],
        revision: Callable[[], int],
        is_own: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self.store = store
        self.clock = clock
        self.table = table
        self.revision = revision
        self.is_own = is_own
        self.runs = Runs()
        self.is_open = False
        self.on_change: Callable[[], None] = lambda: None
        self._reading = anyio.Lock()
        self._news = anyio.Event()
        self._changed = anyio.Event()

    async def open(self) -> None:
        """Read what there is.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        await self.refresh()

    async def follow(self) -> None:
        """Stay in step with the database, for ever: read it if it was away, and whenever it may have changed."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.store.watch, self._note_news)
            pause = _FIRST_PAUSE_S
            while True:
                if self.is_open:
                    await self._news.wait()
                self._news = anyio.Event()
                try:
                    await self.refresh()
                except DatabaseUnavailable as error:
                    log.warning("runs_not_read", reason=error.detail)
                    self._note_news()
                    await anyio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_S)
                else:
                    pause = _FIRST_PAUSE_S

    async def refresh(self) -> None:
        """Read what there is now."""
        async with self._reading:  # what was read first is not to be taken over last
            self._take_over(await self.store.load())

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator[tuple[RunsTransaction, Runs]]:
        """Change something, on top of what all routers have made of it; what was written holds here at once."""
        # A caller that gives up must not leave a change in the database that does not hold in memory.
        with anyio.CancelScope(shield=True):
            async with self.store.changing() as transaction:
                yield transaction, await transaction.load()
                written = await transaction.load()
            try:
                await self.refresh()
            except DatabaseUnavailable:  # too late to say that nothing was changed
                self._take_over(written)
                self._note_news()

    async def until_open_runs(self) -> None:
        """Wait until a leader has something to do."""
        while not self.runs.is_open:
            await self._changed.wait()

    def _take_over(self, runs: Runs) -> None:
        was_open, self.is_open = self.is_open, True
        if runs != self.runs or not was_open:
            self.runs = runs
            self.on_change()
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _note_news(self) -> None:
        self._news.set()


def find(records: Mapping[str, R], kind: str, name: str) -> R:
    """One of several.

    Raises:
        NotFound: There is none of that name.
    """
    if name not in records:
        raise NotFound(f"there is no {kind} {name}")
    return records[name]


def precondition_of(versions: frozenset[str] | None, *, absent: bool) -> Check:
    """The conditions of a request (RFC 9110 §13.1)."""

    def check(version: str) -> None:
        if absent and version:
            raise PreconditionFailed("it is there already", version=version)
        if versions is not None and not (version and versions & {version, "*"}):
            raise PreconditionFailed("it was changed since, or is not there", version=version)

    return check

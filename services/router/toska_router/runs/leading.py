"""The one router that leads rollouts and experiments: whoever holds a lock in the registry, while there is any to lead.

    idle ──something is open──▶ waiting for the lock ──▶ leading: looks once an interval ──nothing is open──▶ idle
      ▲                                                     │
      └── the lock is lost, or a later leader has written ──┘

A lock service cannot stop a leader that was paused. So each writes a number of its own into the database first, higher
than all before, and writes nothing more once there is a higher one. The next leader goes on where the evidence ends.
While the registry or the database is away nobody leads: weights stay, and time does not pass for rollouts.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import structlog
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_lock import Lock
from toska_common.errors import MeshError

from toska_router.experiments import changes as experiments
from toska_router.experiments.machine import Window
from toska_router.rollouts import leading as rollouts
from toska_router.rollouts.adoption import wants_adoption
from toska_router.runs.book import RunsBook
from toska_router.runs.records import RolloutRecord
from toska_router.runs.store import NotLeading, RunsTransaction

log = structlog.get_logger(__name__)

LOCK = "toska/router/leader"
LOCK_TTL = timedelta(seconds=10)
RETRY = timedelta(seconds=1)


class Leader:
    """Leads while it may.

    Args:
        book: What there is to lead.
        consul: The registry.
        router: This router's name, for others.
        interval: How often it looks.
        adopt: Changes the route of a rollout that has succeeded.
    """

    def __init__(
        self,
        book: RunsBook,
        consul: ConsulClient,
        router: str,
        interval: timedelta,
        adopt: Callable[[RolloutRecord], Awaitable[None]],
    ) -> None:
        self._book = book
        self._consul = consul
        self._router = router
        self._interval_s = interval.total_seconds()
        self._adopt = adopt
        self._windows: dict[str, Window] = {}

    async def run(self) -> None:
        """Lead whenever there is something to lead and the lock is to be had, for ever."""
        while True:
            await self._book.until_open_runs()
            try:
                # No delay after a lock that was lost: what a delay is for, the number in the database does.
                hold = Lock.hold(self._consul, LOCK, value=self._router.encode(), ttl=LOCK_TTL, lock_delay=timedelta())
                async with hold:
                    await self._lead()
            except NotLeading:
                log.warning("lead_lost", router=self._router, reason="a later leader has written")
            except MeshError as error:
                log.warning("lead_lost", router=self._router, reason=error.detail)
            await anyio.sleep(RETRY.total_seconds())

    async def _lead(self) -> None:
        fence = await self._take_over()
        log.info("leading", router=self._router, fence=fence)
        looked_at = self._book.clock.monotonic()
        while self._book.runs.is_open:
            now = self._book.clock.monotonic()
            await self._look(fence, now - looked_at)
            looked_at = now
            await anyio.sleep(self._interval_s)
        log.info("lead_given_back", router=self._router, fence=fence)

    async def _take_over(self) -> int:
        self._windows = {}
        async with self._book.changing() as (transaction, runs):
            fence = await transaction.take_lead(self._router)
            if runs.leader.fence:
                for record in runs.rollouts.values():
                    await rollouts.note_follower(self._book, transaction, record, self._router)
        return fence

    async def _look(self, fence: int, elapsed_s: float) -> None:
        async with self._book.changing() as (transaction, runs):
            await transaction.require_lead(fence)
            tended = [
                await rollouts.tend(self._book, transaction, record, elapsed_s) for record in runs.rollouts.values()
            ]
            guarded = [
                await experiments.tend(self._book, transaction, record, self._window(record.token), fence)
                for record in runs.experiments.values()
            ]
            await self._forget(transaction, [one.token for one in (*tended, *guarded) if not one.is_over])
        for record in tended:
            if wants_adoption(record, self._book, self._book.table()):
                await self._adopt(record)

    async def _forget(self, transaction: RunsTransaction, tokens: list[str]) -> None:
        self._windows = {token: window for token, window in self._windows.items() if token in tokens}
        await transaction.forget_tallies(tokens)

    def _window(self, token: str) -> Window:
        return self._windows.setdefault(token, Window())

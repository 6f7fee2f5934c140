"""Hears what gateways have counted, and passes the newest of each on to the database, a few times a second."""

from collections.abc import Callable, Collection
from datetime import timedelta

import anyio
import structlog
from toska_common.contracts.tallies import TallyReport
from toska_common.database import DatabaseUnavailable

from toska_router.runs.store import RunsStore

log = structlog.get_logger(__name__)

PASSED_ON_EVERY = timedelta(milliseconds=300)
MAX_GATEWAYS = 1_000
"""Whose reports wait to be passed on; the sums of a gateway replace its last ones."""


class TallyInbox:
    """Reports that wait.

    Args:
        store: Where they go.
        tokens: What is counted under now; nothing else is kept.
    """

    def __init__(self, store: RunsStore, tokens: Callable[[], Collection[str]]) -> None:
        self._store = store
        self._tokens = tokens
        self._waiting: dict[str, TallyReport] = {}
        self._passed_on: dict[str, TallyReport] = {}
        self._heard = anyio.Event()

    def hear(self, report: TallyReport) -> None:
        """Take a report; what is heard while the database is away waits, and newer sums take its place."""
        tokens = self._tokens()
        # Before it is compared: what is under a token that is not known here yet has to be heard once it is.
        report = report.model_copy(update={"tallies": tuple(one for one in report.tallies if one.token in tokens)})
        if not report.tallies:
            return
        known = self._waiting.get(report.epoch) or self._passed_on.get(report.epoch)
        if known is not None and (known.sequence >= report.sequence or known.tallies == report.tallies):
            return
        if report.epoch in self._waiting or len(self._waiting) < MAX_GATEWAYS:
            self._waiting[report.epoch] = report
            self._heard.set()

    async def run(self) -> None:
        """Pass on what is heard, for ever."""
        while True:
            await self._heard.wait()
            self._heard = anyio.Event()
            try:
                await self._pass_on()
            except DatabaseUnavailable as error:
                log.warning("tallies_wait", reason=error.detail, gateways=len(self._waiting))
                self._heard.set()
            await anyio.sleep(PASSED_ON_EVERY.total_seconds())

    async def _pass_on(self) -> None:
        reports, tokens = dict(self._waiting), self._tokens()
        async with self._store.changing() as transaction:
            for report in reports.values():
                await transaction.hear(report, tokens)
        for epoch, report in reports.items():
            self._passed_on[epoch] = report
            if self._waiting.get(epoch) is report:
                del self._waiting[epoch]
        while len(self._passed_on) > MAX_GATEWAYS:
            del self._passed_on[next(iter(self._passed_on))]

"""Reports that come by discovery's own APIs move their instance's share of traffic; apps of the SDK move their own."""

from collections.abc import Mapping

from toska_common.clock import Clock
from toska_common.contracts.discovery import Heartbeat, Report
from toska_common.contracts.reports import score_steps, with_steps
from toska_common.shares import Share

from toska_discovery.backend import Backend

MAX_SHARES = 200_000
"""Instances remembered; the oldest are forgotten, which loses no more than their pause between steps."""


class TrafficShares:
    """Renews instances, and keeps their shares in step with what they report."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._shares: dict[str, Share] = {}

    async def renew(self, instance_id: str, report: Report | None) -> Heartbeat:
        """Renew a lease; the report, if there is one, may move the share by a step."""
        answer = await self._backend.renew(instance_id, report)
        if report is not None:
            await self._follow(instance_id, report.score)
        return answer

    async def _follow(self, instance_id: str, score: float) -> None:
        share = self._shares.get(instance_id)
        if share is None:
            share = Share(score_steps((await self._backend.get_member(instance_id)).meta))
            self._remember(instance_id, share)
        if share.feed(score, self._clock.monotonic()):

            def step(meta: Mapping[str, str]) -> Mapping[str, str]:
                return with_steps(meta, share.steps)

            await self._backend.amend(instance_id, step)

    def _remember(self, instance_id: str, share: Share) -> None:
        while len(self._shares) >= MAX_SHARES:
            del self._shares[next(iter(self._shares))]
        self._shares[instance_id] = share

"""Probes every check that must be asked, when it is due and not too many at a time, and hands in the verdicts.

One task for all checks, and one more for each probe that is under way. A check that goes or changes takes its probe
under way with it. Aliases are not probed: they follow what happens (`aliases`).
"""

import asyncio
import random
from collections.abc import Mapping

import anyio
import structlog
from toska_common.clock import Clock
from toska_common.contracts.discovery import Health

from toska_discovery.check import CheckDefinition, CheckKind
from toska_discovery.errors import UnknownCheck
from toska_discovery.probing.schedule import Schedule
from toska_discovery.probing.verdict import Judge, Runner, Streak, Verdict

log = structlog.get_logger(__name__)

TICK_S = 0.02
"""Checks that are due within this time go out together."""


class Prober:
    """Runs the probes of all checks.

    Args:
        judge: Who takes the verdicts.
        runners: By the kind of check that they probe; checks of other kinds are left alone.
        clock: What intervals are measured by.
        at_a_time: Most probes under way.
    """

    def __init__(self, judge: Judge, runners: Mapping[CheckKind, Runner], clock: Clock, *, at_a_time: int) -> None:
        self._judge = judge
        self._runners = runners
        self._clock = clock
        self._at_a_time = at_a_time
        self._schedule = Schedule(random.Random().random)  # noqa: S311 - spreads load, guards nothing
        self._definitions: dict[str, CheckDefinition] = {}
        self._streaks: dict[str, Streak] = {}
        self._under_way: dict[str, anyio.CancelScope] = {}
        self._changed = anyio.Event()
        self.probes = 0
        """Probes that have ended with a verdict."""

    @property
    def checks(self) -> int:
        """How many checks are probed."""
        return len(self._schedule)

    @property
    def under_way(self) -> int:
        """How many probes are."""
        return len(self._under_way)

    def follow(self, changes: Mapping[str, CheckDefinition | None]) -> None:
        """Probe these checks from now on, or anew; no more those that are `None`."""
        for check_id, definition in changes.items():
            self._forget(check_id)
            if definition is None or definition.probe is None or definition.kind not in self._runners:
                continue
            probe = definition.probe
            self._definitions[check_id] = definition
            self._streaks[check_id] = Streak(probe.success_before_passing, probe.failures_before_critical)
            self._schedule.put(check_id, probe.interval_s, self._clock.monotonic())
        if changes:
            self._changed.set()

    async def run(self) -> None:
        """Probe for ever."""
        async with anyio.create_task_group() as group:
            while True:
                self._changed = anyio.Event()
                free = self._at_a_time - len(self._under_way)
                for check_id in self._schedule.take(self._clock.monotonic(), free):
                    scope = self._under_way[check_id] = anyio.CancelScope()
                    group.start_soon(self._probe, check_id, self._definitions[check_id], scope)
                await self._wait()

    async def _wait(self) -> None:
        due = self._schedule.next_due
        if due is None or len(self._under_way) >= self._at_a_time:
            await self._changed.wait()
            return
        # A bare timer: anyio's deadlines spin for the last part of a millisecond, which uvloop's clock does not show.
        delay = max(due - self._clock.monotonic(), TICK_S)
        timer = asyncio.get_running_loop().call_later(delay, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _probe(self, check_id: str, definition: CheckDefinition, scope: anyio.CancelScope) -> None:
        with scope:
            verdict = await self._ask(definition)
            # An answer that had come when the check went, or changed, is past being cancelled.
            if self._under_way.get(check_id) is scope:
                if self._streaks[check_id].take(verdict.status):
                    self._hand_in(check_id, verdict)
                self.probes += 1
        if self._under_way.get(check_id) is scope:
            del self._under_way[check_id]
            self._schedule.done(check_id, self._clock.monotonic())
            self._changed.set()

    async def _ask(self, definition: CheckDefinition) -> Verdict:
        probe, kind = definition.probe, definition.kind
        if probe is None:
            raise ValueError(f"check {definition.id} has nothing to probe")
        try:
            return await self._runners[kind].run(probe, definition.output_max_bytes)
        except Exception as error:
            # A check may hold anything; what no runner foresaw is that check's trouble and nobody else's.
            log.exception("probe_crashed", check=definition.id, kind=kind.value)
            return Verdict(Health.CRITICAL, f"the probe failed: {type(error).__name__}")

    def _hand_in(self, check_id: str, verdict: Verdict) -> None:
        try:
            self._judge.judge(check_id, verdict.status, verdict.output)
        except UnknownCheck:
            self._forget(check_id)

    def _forget(self, check_id: str) -> None:
        self._schedule.remove(check_id)
        self._definitions.pop(check_id, None)
        self._streaks.pop(check_id, None)
        scope = self._under_way.pop(check_id, None)
        if scope is not None:
            scope.cancel()

"""From health scores to shares of traffic: slowly, in few steps, and with a margin. Pure.

    4/4 ──score below──▶ 3/4 ──▶ 2/4 ──▶ 1/4        one step at a time, and never less
        ◀──score above──     ◀──     ◀──            later than down: an instance that flaps stays down

A step changes the registry's record, which every watcher of the service is told; so a score that only wavers must not
make one.
"""

import math

from toska_common.contracts.reports import SCORE_STEPS

DOWN_PAUSE_S = 3.0
UP_PAUSE_S = 15.0
"""Least time since the last step, in whichever direction that was."""
_MARGIN = 0.625
"""How far a score must be from the present step, in steps; half a step would be plain rounding."""


class Share:
    """One instance's share, in steps of `SCORE_STEPS`."""

    def __init__(self, steps: int = SCORE_STEPS) -> None:
        self.steps = steps
        self._stepped_at = -math.inf

    def feed(self, score: float, now: float) -> bool:
        """Take a score at `now` (monotonic seconds); tells whether `steps` is different."""
        wanted = max(1.0, score * SCORE_STEPS)
        waited = now - self._stepped_at
        if wanted < self.steps - _MARGIN and waited >= DOWN_PAUSE_S:
            self.steps -= 1
        elif wanted > self.steps + _MARGIN and waited >= UP_PAUSE_S:
            self.steps += 1
        else:
            return False
        self._stepped_at = now
        return True

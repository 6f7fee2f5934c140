"""When a chaos experiment ends: a state machine that knows no clock and does no I/O.

    pending ──a router leads──▶ running ──its time is over──▶ finished
       │                           └──by hand, too many failures, or its leader is gone──▶ stopped
       └──by hand──▶ stopped

An experiment belongs to the leader that began it: another cannot know what happened while nobody guarded it, so it
ends it. Gateways end faults by themselves at the time that the snapshot says, whatever has become of the router.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from toska_common.contracts.experiments import Experiment, ExperimentStatus
from toska_common.contracts.tallies import WholeCounts


@dataclass(slots=True)
class Window:
    """What was counted lately; times are monotonic seconds of one leader.

    Attributes:
        watched_s: How long ago the first of it was noted.
    """

    watched_s: float = 0.0
    _since: float | None = None
    _samples: deque[tuple[float, WholeCounts]] = field(default_factory=deque[tuple[float, WholeCounts]])

    def add(self, now: float, whole: WholeCounts, length_s: float) -> None:
        """Note the sums at this moment, and forget those that are out of the window but the newest of them."""
        self._since = now if self._since is None else self._since
        self.watched_s = now - self._since
        self._samples.append((now, whole))
        while len(self._samples) > 1 and self._samples[1][0] <= now - length_s:
            self._samples.popleft()

    @property
    def requests(self) -> int:
        """How many there were in the window."""
        return max(0, self._samples[-1][1].requests - self._samples[0][1].requests) if self._samples else 0

    @property
    def error_ratio(self) -> float | None:
        """Which share of them failed; `None` of nothing."""
        if not self.requests:
            return None
        return (self._samples[-1][1].failed - self._samples[0][1].failed) / self.requests


def begin(experiment: Experiment, status: ExperimentStatus, now: datetime, ends_at: datetime) -> ExperimentStatus:
    """Take it up: somebody guards it from now on."""
    says = f"until {ends_at.isoformat()}"
    return status.model_copy(update={"phase": "running", "started_at": now, "ends_at": ends_at, "reason": says})


def advance(
    experiment: Experiment, status: ExperimentStatus, window: Window, whole: WholeCounts, now: datetime
) -> ExperimentStatus:
    """Look at what a running one does; `window` has been told of `whole` already."""
    ratio = window.error_ratio
    worst = max((one for one in (status.worst_error_ratio, ratio) if one is not None), default=None)
    status = status.model_copy(update={"whole": whole, "recent_error_ratio": ratio, "worst_error_ratio": worst})
    rule = experiment.stop
    if ratio is not None and window.requests >= rule.min_requests and ratio > rule.error_ratio:
        reason = f"{ratio:.1%} of {window.requests} requests failed lately; at most {rule.error_ratio:.1%} may"
        return end(status, "stopped", reason, now)
    if _is_due(status, window, now):
        return end(status, "finished", "its time is over", now)
    return status


def _is_due(status: ExperimentStatus, window: Window, now: datetime) -> bool:
    if status.ends_at is None or status.started_at is None:
        return False
    # By both clocks: the one on the wall may be put back meanwhile, and what was promised is a duration.
    return now >= status.ends_at or window.watched_s >= (status.ends_at - status.started_at).total_seconds()


def end(status: ExperimentStatus, phase: str, reason: str, now: datetime) -> ExperimentStatus:
    """End it."""
    return status.model_copy(update={"phase": phase, "reason": reason, "ended_at": now})


def add_up(wholes: list[WholeCounts]) -> WholeCounts:
    """What all gateways have served."""
    return WholeCounts(
        requests=sum(one.requests for one in wholes),
        failed=sum(one.failed for one in wholes),
        aborted=sum(one.aborted for one in wholes),
    )

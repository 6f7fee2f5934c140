"""What becomes of a rollout: a state machine that knows no clock and does no I/O.

    pending ──a router leads──▶ running
    running ──good for long enough──▶ running at the next step ──…──▶ succeeded
       │ ▲  └──proven bad, or not shown to be good by the deadline──▶ rolled_back
    pause resume                                                         ▲
       ▼ │                                                               │
     paused ──proven bad, or by hand─────────────────────────────────────┘
       any of these ──the route was changed by hand──▶ superseded

It is fed with what was counted in the present step, and with how long somebody has watched since the last time. Time
without a watcher (no router led) counts neither for a step nor against it, and nothing that is fed twice counts twice.
A pause stops promotion and the deadline; a canary that is proven bad is rolled back all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from toska_common.contracts.rollouts import Comparison, Evidence, Phase, Rollout, RolloutStep, Verdict

from toska_router.errors import NotUnderWay
from toska_router.rollouts.counts import Side
from toska_router.rollouts.judge import alpha_of, judge, worst

LONGEST_GAP_S = 5.0
"""Of the time between two looks, no more than this was watched."""

Kind = Literal["started", "promoted", "paused", "resumed", "rolled_back", "succeeded", "superseded"]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the baseline did in the last step that had one; that of 100% has none."""

    step: int
    side: Side


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is."""

    phase: Phase = "running"
    step: int = 0
    watched_s: float = 0.0
    reference: Reference | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.phase not in ("pending", "running", "paused")


@dataclass(frozen=True, slots=True)
class Sides:
    """What was counted in the present step."""

    canary: Side
    baseline: Side


@dataclass(frozen=True, slots=True)
class Move:
    """What has become of it: `kind` if something did, in the words of the history."""

    progress: Progress
    evidence: Evidence | None = None
    kind: Kind | None = None


def begin(progress: Progress) -> Move:
    """Take it up: somebody watches from now on."""
    return Move(replace(progress, phase="running", reason="its first step"), kind="started")


def advance(rollout: Rollout, progress: Progress, sides: Sides, elapsed_s: float) -> Move:
    """Look at what the step has seen, `elapsed_s` after the last look."""
    if progress.is_over or progress.phase == "pending":
        return Move(progress)
    if progress.phase == "running":
        watched = progress.watched_s + min(max(elapsed_s, 0.0), LONGEST_GAP_S)
        progress = replace(progress, watched_s=watched)
    step = rollout.steps[progress.step]
    evidence = look(rollout, progress, sides)
    if evidence.verdict == "bad":
        proof = next(one.says for one in evidence.comparisons if one.verdict == "bad")
        return _roll_back(progress, proof, evidence)
    if progress.phase == "paused":
        return Move(progress, evidence)
    if progress.watched_s >= _seconds(step.hold or rollout.hold) and evidence.verdict == "good":
        return _go_on(rollout, progress, sides, evidence, "the canary did no worse than allowed")
    if progress.watched_s >= _seconds(step.deadline or rollout.deadline):
        return _at_deadline(rollout, progress, sides, evidence)
    return Move(progress, evidence)


def look(rollout: Rollout, progress: Progress, sides: Sides) -> Evidence:
    """What the step has seen, and what is thought of it."""
    step = rollout.steps[progress.step]
    reference = _reference(progress, sides, step)
    baseline = None if reference is None else reference.side
    comparisons = judge(rollout.checks, sides.canary, baseline, alpha=alpha_of(rollout))
    verdict = worst([one.verdict for one in comparisons])
    if verdict == "good" and not (comparisons and _has_enough(rollout, step, sides)):
        verdict = "thin"  # also with nothing to compare with: what nobody can judge is not good
    return Evidence(
        step=progress.step,
        percent=step.percent,
        watched_seconds=round(progress.watched_s, 1),
        canary=sides.canary.numbers(),
        baseline=(Side() if baseline is None else baseline).numbers(),
        baseline_of_step=None if reference is None else reference.step,
        comparisons=comparisons,
        verdict=verdict,
        summary=_summary(rollout, progress, sides, comparisons, verdict),
    )


def promote(rollout: Rollout, progress: Progress, sides: Sides, by: str) -> Move:
    """Go on to the next step by hand, whatever was seen.

    Raises:
        NotUnderWay: It is over.
    """
    _require_under_way(progress)
    evidence = look(rollout, progress, sides)
    return _go_on(rollout, replace(progress, phase="running"), sides, evidence, f"promoted by {by}")


def pause(progress: Progress, by: str) -> Move:
    """Stay at this step until it is resumed.

    Raises:
        NotUnderWay: It is not running.
    """
    _require_under_way(progress)
    if progress.phase != "running":
        raise NotUnderWay(f"it is {progress.phase}, and not running")
    return Move(replace(progress, phase="paused", reason=f"paused by {by}"), kind="paused")


def resume(progress: Progress, by: str) -> Move:
    """Go on after a pause: the step's time begins anew, and what it has counted stays.

    Raises:
        NotUnderWay: It is not paused.
    """
    if progress.phase != "paused":
        raise NotUnderWay(f"it is not paused: it is {progress.phase.replace('_', ' ')}")
    return Move(replace(progress, phase="running", watched_s=0.0, reason=f"resumed by {by}"), kind="resumed")


def roll_back(rollout: Rollout, progress: Progress, sides: Sides, by: str) -> Move:
    """Give the baseline everything back, by hand.

    Raises:
        NotUnderWay: It is over.
    """
    _require_under_way(progress)
    return _roll_back(progress, f"rolled back by {by}", look(rollout, progress, sides))


def supersede(progress: Progress, reason: str) -> Move:
    """Give way to what an operator has written in its place, also after a success that was kept."""
    return Move(replace(progress, phase="superseded", reason=reason), kind="superseded")


def percent_of(rollout: Rollout, progress: Progress) -> float:
    """The canary's share of the traffic."""
    if progress.phase in ("pending", "rolled_back"):
        return 0.0
    return 100.0 if progress.phase == "succeeded" else rollout.steps[progress.step].percent


def _go_on(rollout: Rollout, progress: Progress, sides: Sides, evidence: Evidence, reason: str) -> Move:
    if progress.step + 1 == len(rollout.steps):
        return Move(replace(progress, phase="succeeded", reason=reason), evidence, "succeeded")
    reference = _reference(progress, sides, rollout.steps[progress.step])
    after = replace(progress, step=progress.step + 1, watched_s=0.0, reference=reference, reason=reason)
    return Move(after, evidence, "promoted")


def _roll_back(progress: Progress, reason: str, evidence: Evidence) -> Move:
    return Move(replace(progress, phase="rolled_back", reason=reason), evidence, "rolled_back")


def _at_deadline(rollout: Rollout, progress: Progress, sides: Sides, evidence: Evidence) -> Move:
    late = f"after {progress.watched_s:.0f} s"
    if evidence.verdict != "thin":
        return _roll_back(progress, f"the canary was not shown to be good {late}: {evidence.summary}", evidence)
    thin = f"too little was seen {late}: {evidence.summary}"
    if rollout.on_thin_traffic == "promote":
        return _go_on(rollout, progress, sides, evidence, thin)
    if rollout.on_thin_traffic == "pause":
        return Move(replace(progress, phase="paused", reason=thin), evidence, "paused")
    return _roll_back(progress, thin, evidence)


def _reference(progress: Progress, sides: Sides, step: RolloutStep) -> Reference | None:
    """What the canary is compared with: the baseline beside it, or, at 100%, what that last did."""
    if step.percent < 100:
        return Reference(progress.step, sides.baseline)
    return progress.reference


def _has_enough(rollout: Rollout, step: RolloutStep, sides: Sides) -> bool:
    wanted = step.min_requests or rollout.min_requests
    return sides.canary.requests >= wanted and (step.percent >= 100 or sides.baseline.requests >= wanted)


def _summary(
    rollout: Rollout, progress: Progress, sides: Sides, comparisons: Sequence[Comparison], verdict: Verdict
) -> str:
    step = rollout.steps[progress.step]
    if verdict == "good":
        left = _seconds(step.hold or rollout.hold) - progress.watched_s
        return f"within all limits; held for {left:.0f} s more" if left > 0 else "within all limits"
    if verdict != "thin":
        return "; ".join(one.says for one in comparisons if one.verdict == verdict)
    if _has_enough(rollout, step, sides):
        return "there is nothing to compare with"
    wanted = step.min_requests or rollout.min_requests
    baseline = "" if step.percent >= 100 else f", baseline {sides.baseline.requests}"
    return f"canary {sides.canary.requests}{baseline} of {wanted} requests"


def _require_under_way(progress: Progress) -> None:
    if progress.phase == "pending":
        raise NotUnderWay("it has not begun: it waits for a router that leads")
    if progress.is_over:
        raise NotUnderWay(f"it is over: {progress.phase.replace('_', ' ')}")


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()

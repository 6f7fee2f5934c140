"""What `toska rollouts` and `toska rollout` say."""

from datetime import UTC, datetime

from toska_cli.rollouts import describe, summarize
from toska_common.contracts.rollouts import (
    Comparison,
    Evidence,
    Rollout,
    RolloutEntry,
    RolloutEvent,
    RolloutStatus,
    SideNumbers,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVIDENCE = Evidence(
    step=1,
    percent=50,
    watched_seconds=12.3,
    canary=SideNumbers(requests=200, failed=3, error_ratio=0.015, p95_ms=12.34, p99_ms=20),
    baseline=SideNumbers(requests=190),
    comparisons=(Comparison(check="errors", verdict="good", says="1.5% failed, and 1% of the baseline's"),),
    verdict="good",
    summary="within all limits; held for 288 s more",
)
ENTRY = RolloutEntry(
    rollout=Rollout(name="pay", route="pay", baseline="pay-1", canary="pay-2"),
    status=RolloutStatus(phase="running", step=1, percent=50, created_at=AT, changed_at=AT, evidence=EVIDENCE),
    version="v",
)


def test_a_line_has_the_phase_the_step_and_what_it_waits_for() -> None:
    line = summarize(ENTRY)
    assert line.split("  ")[0] == "pay"
    assert "running" in line
    assert "10% [50%] 100%" in line
    assert line.endswith("pay-1 -> pay-2  within all limits; held for 288 s more")
    ended = ENTRY.status.model_copy(update={"phase": "rolled_back", "ended_at": AT, "reason": "rolled back by ann"})
    over = summarize(ENTRY.model_copy(update={"status": ended}))
    assert "rolled back" in over
    assert "10% 50% 100%" in over
    assert over.endswith("rolled back by ann")


def test_one_is_shown_with_its_numbers_and_its_history() -> None:
    event = RolloutEvent(sequence=1, at=AT, kind="promoted", step=0, by="rollout", reason="it did no worse")
    told = list(describe(ENTRY, [event]))
    assert told[1] == "step 50%, watched for 12 s: good"
    assert told[2].split(None, 1) == ["pay-1", "190 requests"]
    assert told[3].split(None, 1) == ["pay-2", "200 requests, 1.50% failed, p95 12.3 ms, p99 20 ms"]
    assert told[4].split() == ["errors", "good", *EVIDENCE.comparisons[0].says.split()]
    assert told[-1].split(None, 3) == ["03:04:05", "10%", "promoted", "rollout: it did no worse"]

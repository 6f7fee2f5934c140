"""What becomes of rollouts, decided without a clock: by counts that are made up, and by property."""

import random
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from toska_common.contracts.rollouts import Rollout
from toska_common.contracts.tallies import CellCounts
from toska_router.errors import NotUnderWay
from toska_router.rollouts.confidence import lower_bound, upper_bound
from toska_router.rollouts.counts import Side, add_up, place_of
from toska_router.rollouts.machine import (
    LONGEST_GAP_S,
    Progress,
    Sides,
    advance,
    pause,
    percent_of,
    promote,
    resume,
    roll_back,
)

FAST, SLOW = 10, 40
"""Places of two buckets far from each other."""


def rollout(**fields: Any) -> Rollout:
    base = {"name": "pay", "route": "pay", "baseline": "pay-1", "canary": "pay-2", "hold": "10s", "deadline": "60s"}
    return Rollout.model_validate({**base, **fields})


def side(requests: int, failed: int = 0, *, slow: int = 0) -> Side:
    return add_up([CellCounts(requests=requests, failed=failed, buckets={FAST: requests - slow, SLOW: slow})])


def watch(plan: Rollout, progress: Progress, sides: Sides, seconds: float) -> Progress:
    """Look once a second."""
    for _ in range(round(seconds)):
        progress = advance(plan, progress, sides, 1.0).progress
    return progress


GOOD = Sides(side(200, 1), side(1800, 9))


def test_a_good_canary_goes_through_all_steps_and_no_faster_than_they_hold() -> None:
    plan, progress, percents = rollout(), Progress(), list[float]()
    for _ in range(30):
        percents.append(percent_of(plan, progress))
        progress = advance(plan, progress, GOOD, 1.0).progress
    assert percents == [10.0] * 10 + [50.0] * 10 + [100.0] * 10
    assert progress.phase == "succeeded"


def test_a_canary_that_fails_is_rolled_back_long_before_the_step_has_held() -> None:
    move = advance(rollout(), Progress(), Sides(side(60, 20), side(500, 1)), 1.0)
    assert move.progress.phase == "rolled_back"
    assert move.kind == "rolled_back"
    assert "33.3% failed" in move.progress.reason
    assert percent_of(rollout(), move.progress) == 0
    assert move.evidence is not None
    assert [one.check for one in move.evidence.comparisons if one.verdict == "bad"] == ["errors"]


def test_three_failures_in_five_requests_prove_nothing() -> None:
    move = advance(rollout(), Progress(), Sides(side(5, 3), side(20)), 1.0)
    assert move.progress.phase == "running"
    assert move.evidence is not None
    assert move.evidence.verdict == "suspicious"


def test_a_slow_canary_is_rolled_back_although_nothing_fails() -> None:
    move = advance(rollout(), Progress(), Sides(side(300, slow=120), side(3000, slow=3)), 1.0)
    assert move.progress.phase == "rolled_back"
    assert "p95" in move.progress.reason


def test_a_canary_that_stays_suspicious_is_rolled_back_at_the_deadline() -> None:
    progress = watch(rollout(), Progress(), Sides(side(100, 3), side(900, 9)), 59)
    assert progress.phase == "running"
    progress = watch(rollout(), progress, Sides(side(100, 3), side(900, 9)), 1)
    assert progress.phase == "rolled_back"
    assert "not shown to be good after 60 s" in progress.reason


@pytest.mark.parametrize(
    ("outcome", "phase"), [("rollback", "rolled_back"), ("pause", "paused"), ("promote", "running")]
)
def test_too_little_traffic_has_the_outcome_that_was_asked_for(outcome: str, phase: str) -> None:
    plan = rollout(on_thin_traffic=outcome)
    progress = watch(plan, Progress(), Sides(side(3), side(30)), 60)
    assert progress.phase == phase
    assert progress.step == (1 if outcome == "promote" else 0)
    assert "canary 3, baseline 30 of 100 requests" in progress.reason


def test_at_all_of_the_traffic_the_canary_is_compared_with_what_the_baseline_last_did() -> None:
    plan = rollout()
    progress = watch(plan, Progress(), GOOD, 20)
    assert percent_of(plan, progress) == 100
    move = advance(plan, progress, Sides(side(400, 60), side(0)), 1.0)
    assert move.progress.phase == "rolled_back"
    assert move.evidence is not None
    assert move.evidence.baseline_of_step == 1
    assert move.evidence.baseline.requests == GOOD.baseline.requests


def test_what_was_promoted_by_hand_with_nothing_to_compare_is_not_taken_for_good() -> None:
    plan = rollout(steps=[50, 100])
    progress = promote(plan, Progress(), Sides(Side(), Side()), "ann").progress
    assert watch(plan, progress, Sides(side(500), Side()), 60).phase == "rolled_back"


def test_a_pause_stops_time_and_no_protection() -> None:
    plan = rollout()
    paused = pause(Progress(), "ann").progress
    assert watch(plan, paused, GOOD, 100) == paused
    assert watch(plan, paused, Sides(side(60, 20), side(500, 1)), 1).phase == "rolled_back"
    assert watch(plan, resume(paused, "ann").progress, GOOD, 10).step == 1


def test_what_is_over_stays_as_it_is() -> None:
    over = roll_back(rollout(), Progress(), GOOD, "ann").progress
    assert advance(rollout(), over, GOOD, 1.0).progress == over
    for act in (lambda: pause(over, "ann"), lambda: resume(over, "ann"), lambda: promote(rollout(), over, GOOD, "ann")):
        with pytest.raises(NotUnderWay, match="rolled back"):
            act()


def test_time_that_nobody_watched_does_not_count() -> None:
    assert advance(rollout(), Progress(), GOOD, 3600.0).progress.watched_s == LONGEST_GAP_S
    assert advance(rollout(), Progress(), GOOD, -3600.0).progress.watched_s == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": [10, 10, 100]}, "each step's percent is higher"),
        ({"steps": [10, 50]}, "the last step's percent is 100"),
        ({"steps": [33.333, 100]}, "two decimals"),
        ({"steps": [100]}, "never a baseline"),
        ({"canary": "pay-1"}, "two clusters"),
        ({"hold": "2m"}, "hold is longer than 0s, and at most deadline"),
        ({"stepz": []}, "Extra inputs"),
        ({"checks": {"latency": [{"quantile": 0.95}, {"quantile": 0.95}]}}, "stands twice"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_a_reason(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        rollout(**fields)


def test_limits_are_rounded_up_to_what_can_be_told_apart() -> None:
    assert place_of(timedelta(milliseconds=1)) == 13
    assert place_of(timedelta(milliseconds=1.05)) == 14
    assert side(10, slow=4).slower_than(FAST) == 4


# -- for all of them


def _some_side(requests: int, failed: int, slow: int) -> Side:
    return side(requests, min(failed, requests), slow=min(slow, requests))


_sides = st.builds(_some_side, st.integers(0, 2000), st.integers(0, 300), st.integers(0, 300))
_looks = st.lists(st.tuples(st.builds(Sides, _sides, _sides), st.floats(-10, 100)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(_looks, st.sampled_from(["rollback", "pause", "promote"]))
def test_no_step_is_skipped_and_none_passed_without_enough_requests(
    looks: list[tuple[Sides, float]], outcome: str
) -> None:
    plan = rollout(on_thin_traffic=outcome)
    progress = Progress()
    for sides, elapsed in looks:
        move = advance(plan, progress, sides, elapsed)
        before, progress = progress, move.progress
        if before.is_over:
            assert move.kind is None
            assert progress == before
            continue
        assert progress.step in (before.step, before.step + 1)
        went_on = move.kind in ("promoted", "succeeded")
        assert went_on == (progress.step > before.step or progress.phase == "succeeded")
        assert move.evidence is not None
        if move.evidence.verdict == "bad":
            assert progress.phase == "rolled_back"
        if went_on:
            assert move.evidence.verdict == "good" or (move.evidence.verdict == "thin" and outcome == "promote")
            assert before.watched_s + LONGEST_GAP_S >= 10
        if went_on and outcome != "promote":
            assert sides.canary.requests >= plan.min_requests


@settings(max_examples=100, deadline=None)
@given(_looks)
def test_looking_again_without_time_or_news_changes_nothing(looks: list[tuple[Sides, float]]) -> None:
    plan, progress = rollout(), Progress()
    for sides, elapsed in looks:
        move = advance(plan, progress, sides, elapsed)
        if move.kind is None:
            assert advance(plan, move.progress, sides, 0.0).progress == move.progress
        progress = move.progress


@given(st.integers(0, 400), st.integers(0, 400))
def test_bounds_hold_what_was_seen_and_narrow_as_more_is_seen(hits: int, misses: int) -> None:
    trials = hits + misses
    low, high = lower_bound(hits, trials, 0.01), upper_bound(hits, trials, 0.01)
    assert 0 <= low <= high <= 1
    if trials:
        assert low <= hits / trials <= high
        assert lower_bound(10 * hits, 10 * trials, 0.01) >= low
        assert lower_bound(hits, trials, 0.001) <= low


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_bounds_are_wrong_as_seldom_as_they_say_however_often_one_looks(share: float) -> None:
    draw = random.Random(20)
    wrong = sum(_is_ever_wrong(draw, share) for _ in range(400))
    assert wrong <= 400 * 0.05


def _is_ever_wrong(draw: random.Random, share: float) -> bool:
    hits = 0
    for trials in range(1, 301):
        hits += draw.random() < share
        if trials % 5 == 0 and lower_bound(hits, trials, 0.05) > share:
            return True
    return False


def test_two_sides_that_are_alike_are_hardly_ever_told_apart_and_two_that_differ_always() -> None:
    draw = random.Random(7)
    outcomes = {share: [_run(draw, share) for _ in range(40)] for share in (0.03, 0.2)}
    assert outcomes[0.03].count("rolled_back") <= 2
    assert set(outcomes[0.2]) == {"rolled_back"}


def _run(draw: random.Random, canary_fails: float) -> str:
    """Ten requests to the canary between any two looks, with an increase allowed that its chance stays within."""
    plan = rollout(steps=[10, 100], hold="20s", checks={"errors": {"max_increase": 0.05}, "latency": []})
    progress, canary, baseline = Progress(), [0, 0], [0, 0]
    while progress.step == 0 and not progress.is_over:
        for counts, number, share in ((canary, 10, canary_fails), (baseline, 90, 0.03)):
            counts[0] += number
            counts[1] += sum(draw.random() < share for _ in range(number))
        progress = advance(plan, progress, Sides(side(*canary), side(*baseline)), 1.0).progress
    return progress.phase


def test_latencies_are_told_apart_bucket_by_bucket() -> None:
    bounds = [side(100, slow=slow).latency_s(0.95) for slow in (0, 3, 6, 60)]
    assert all(earlier is not None and later is not None and earlier <= later for earlier, later in pairwise(bounds))

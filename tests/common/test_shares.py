"""Scores become shares of traffic in few, slow steps."""

import pytest
from toska_common.contracts.discovery import OTHER_CALLERS, Health, Report
from toska_common.contracts.reports import (
    MAX_OUTPUT_BYTES,
    decode_report,
    encode_report,
    score_of,
    score_steps,
    with_steps,
)
from toska_common.shares import DOWN_PAUSE_S, UP_PAUSE_S, Share


def test_a_share_falls_step_by_step_and_never_to_nothing() -> None:
    share = Share()
    steps = [(share.feed(0.0, now), share.steps) for now in (0.0, 1.0, DOWN_PAUSE_S, 2 * DOWN_PAUSE_S, 100.0)]
    assert steps == [(True, 3), (False, 3), (True, 2), (True, 1), (False, 1)]


def test_a_share_rises_more_slowly_than_it_falls() -> None:
    share = Share(steps=2)
    share.feed(0.0, 0.0)
    assert share.steps == 1
    assert not share.feed(1.0, UP_PAUSE_S - 0.1)
    assert [share.feed(1.0, UP_PAUSE_S * turn) for turn in (1, 2, 3, 4)] == [True, True, True, False]
    assert share.steps == 4


def test_a_score_that_wavers_around_a_step_makes_none() -> None:
    share = Share(steps=3)
    scores = [0.75, 0.62, 0.88, 0.65, 0.85] * 10
    assert not any(share.feed(score, 100.0 * turn) for turn, score in enumerate(scores))


@pytest.mark.parametrize(
    ("text", "steps"),
    [(None, 4), ("0.75", 3), ("0.25", 1), ("0", 1), ("-3", 1), ("7", 4), ("nan", 4), ("inf", 4), ("x", 4)],
)
def test_steps_are_read_from_whatever_the_metadata_says(text: str | None, steps: int) -> None:
    assert score_steps({} if text is None else {"toska-score": text}) == steps


def test_a_whole_share_leaves_no_trace_in_the_metadata() -> None:
    lowered = with_steps({"a": "b"}, 3)
    assert lowered == {"a": "b", "toska-score": "0.75"}
    assert with_steps(lowered, 4) == {"a": "b"}


def test_a_report_comes_back_from_a_checks_output() -> None:
    report = Report(score=0.5, in_flight=3, callers={"shop": 7})
    assert decode_report(encode_report(report)) == report
    for output in ("", "TTL expired", '{"score":', '{"score":7}', '{"other":1}'):
        assert decode_report(output) is None


def test_the_rarest_callers_are_added_up_where_there_is_no_room() -> None:
    callers = {f"{'c' * 60}-{number:02}": number for number in range(64)}
    text = encode_report(Report(callers=callers))
    assert len(text) <= MAX_OUTPUT_BYTES
    kept = decode_report(text)
    assert kept is not None
    assert sum(kept.callers.values()) == sum(callers.values())
    assert f"{'c' * 60}-63" in kept.callers
    assert kept.callers[OTHER_CALLERS] > 0


def test_a_score_is_that_of_the_checks_times_what_was_reported() -> None:
    assert score_of(Health.PASSING, None) == 1
    assert score_of(Health.WARNING, Report(score=0.5)) == 0.25
    assert score_of(Health.CRITICAL, Report(score=1)) == 0

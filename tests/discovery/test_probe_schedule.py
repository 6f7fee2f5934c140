"""When checks are probed, and when their verdicts count: days of it, without waiting for any."""

import random

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.check import Check, CheckDefinition
from toska_discovery.probing.aliases import alias_verdict
from toska_discovery.probing.schedule import Schedule
from toska_discovery.probing.verdict import Streak, Tail, Verdict

ANY = 1_000_000


def fixed(chance: float = 0.5) -> Schedule:
    return Schedule(lambda: chance)


def test_the_first_probe_comes_within_the_interval_and_the_next_one_interval_after_its_end() -> None:
    schedule = fixed(0.25)
    schedule.put("c", 10.0, now=100.0)
    assert schedule.next_due == 102.5
    assert schedule.take(102.4, ANY) == []
    assert schedule.take(102.5, ANY) == ["c"]
    assert schedule.next_due is None
    schedule.done("c", 104.0)
    assert schedule.next_due == 114.0


def test_a_thousand_checks_that_come_together_are_spread_over_their_interval() -> None:
    schedule = Schedule(random.Random(7).random)
    for number in range(1000):
        schedule.put(f"c{number}", 10.0, now=0.0)
    per_second = [len(schedule.take(second + 1.0, ANY)) for second in range(10)]
    assert sum(per_second) == 1000
    assert max(per_second) < 150
    assert min(per_second) > 50


def test_no_more_are_taken_than_there_is_room_for_and_the_most_overdue_go_first() -> None:
    schedule = fixed(0.0)
    for number in (3, 1, 2):
        schedule.put(f"c{number}", 10.0, now=float(number))
    assert schedule.take(50.0, 2) == ["c1", "c2"]
    assert schedule.take(50.0, 0) == []
    assert schedule.take(50.0, 2) == ["c3"]


def test_a_removed_check_is_never_taken_and_its_probe_under_way_changes_nothing() -> None:
    schedule = fixed(0.0)
    schedule.put("gone", 10.0, now=0.0)
    schedule.put("out", 10.0, now=0.0)
    assert sorted(schedule.take(0.0, 1) + schedule.take(0.0, 1)) == ["gone", "out"]
    schedule.remove("gone")
    schedule.done("gone", 1.0)
    schedule.done("out", 1.0)
    assert schedule.take(100.0, ANY) == ["out"]
    assert len(schedule) == 1


def test_a_check_that_is_put_anew_follows_its_new_interval_only() -> None:
    schedule = fixed(0.5)
    schedule.put("c", 10.0, now=0.0)
    assert schedule.take(5.0, ANY) == ["c"]
    schedule.put("c", 60.0, now=6.0)
    schedule.done("c", 7.0)  # of the old probe
    assert schedule.next_due == 36.0
    assert schedule.take(35.9, ANY) == []
    assert schedule.take(36.0, ANY) == ["c"]


def test_the_queue_does_not_grow_with_checks_that_come_and_go() -> None:
    schedule = fixed()
    for number in range(10_000):
        schedule.put(f"c{number}", 10.0, now=0.0)
        schedule.put(f"c{number}", 20.0, now=0.0)
        schedule.remove(f"c{number}")
    assert len(schedule._queue) < 200  # pyright: ignore[reportPrivateUsage] - memory is what this is about


def test_every_check_of_two_hundred_is_probed_once_an_interval_for_an_hour() -> None:
    schedule = Schedule(random.Random(1).random)
    counts = dict.fromkeys((f"c{number}" for number in range(200)), 0)
    for check_id in counts:
        schedule.put(check_id, 30.0, now=0.0)
    for second in range(1, 3601):
        for check_id in schedule.take(float(second), ANY):
            counts[check_id] += 1
            schedule.done(check_id, float(second))
    assert set(counts.values()) <= {119, 120, 116, 117, 118}


PASSING, WARNING, CRITICAL = Health.PASSING, Health.WARNING, Health.CRITICAL


@pytest.mark.parametrize(
    ("success", "failures", "seen", "counted"),
    [
        (0, 0, [PASSING, CRITICAL, PASSING], [True, True, True]),
        (3, 0, [PASSING, CRITICAL, PASSING, PASSING, PASSING], [True, True, False, False, True]),
        (0, 3, [PASSING, CRITICAL, CRITICAL, CRITICAL, PASSING], [True, False, False, True, True]),
        (0, 3, [CRITICAL], [True]),
        (0, 3, [PASSING, CRITICAL, CRITICAL, PASSING, CRITICAL, CRITICAL], [True, False, False, True, False, False]),
        (2, 2, [CRITICAL, WARNING, WARNING, CRITICAL, CRITICAL], [True, False, True, False, True]),
    ],
)
def test_verdicts_count_once_there_are_enough_of_them_in_a_row(
    success: int, failures: int, seen: list[Health], counted: list[bool]
) -> None:
    streak = Streak(success, failures)
    assert [streak.take(status) for status in seen] == counted


def test_the_end_of_a_long_output_is_kept() -> None:
    tail = Tail(5)
    for chunk in (b"ab", b"cdef", b"", b"\xffh"):
        tail.add(chunk)
    assert (tail.text, tail.total) == ("def\N{REPLACEMENT CHARACTER}h", 8)


def check(name: str, status: Health, output: str = "") -> Check:
    return Check(CheckDefinition(name, f"the {name}"), status, output, 1, 1)


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([], Verdict(PASSING, "No checks found.")),
        ([check("a", PASSING), check("b", PASSING)], Verdict(PASSING, "All checks passing.")),
        ([check("a", PASSING), check("b", WARNING, "w")], Verdict(WARNING, 'Aliased check "the b" failing: w')),
        ([check("a", WARNING), check("b", CRITICAL, "c")], Verdict(CRITICAL, 'Aliased check "the b" failing: c')),
    ],
)
def test_an_alias_is_as_well_as_the_worst_of_what_it_follows(checks: list[Check], verdict: Verdict) -> None:
    assert alias_verdict({check.definition.id: check for check in checks}) == verdict

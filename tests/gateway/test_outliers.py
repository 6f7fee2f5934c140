"""Which endpoints are ejected, for how long, and how many at most; walked by reports and times."""

import random
from dataclasses import dataclass

import pytest
from toska_gateway.worker.outliers import OutlierPolicy


@dataclass(eq=False)
class Suspected:
    """An endpoint of which nothing else matters here."""

    failures: int = 0
    gateway_errors: int = 0
    server_errors: int = 0
    ejections: int = 0
    ejected_until: float = 0.0
    unreachable: bool = False


POLICY = OutlierPolicy(consecutive_gateway_errors=3, consecutive_5xx=5, base_ejection_s=10, max_ejection_s=100)
SEVERAL = 10


def cluster(count: int = SEVERAL) -> list[Suspected]:
    return [Suspected() for _ in range(count)]


def fail(endpoint: Suspected, everybody: list[Suspected], now: float, policy: OutlierPolicy = POLICY) -> float:
    """Answers of 503 until it is ejected; for how long it is."""
    for _ in range(policy.consecutive_gateway_errors):
        if policy.answered(endpoint, 503, everybody, now):
            return endpoint.ejected_until - now
    return 0.0


def test_so_many_gateway_errors_in_a_row_eject_an_endpoint() -> None:
    everybody = cluster()
    one = everybody[0]
    outcomes = [POLICY.answered(one, status, everybody, 100.0) for status in (502, 503, 200, 504, 502)]
    assert not any(outcomes)
    assert POLICY.answered(one, 503, everybody, 100.0)
    assert one.ejected_until == 110.0


def test_other_server_errors_count_towards_their_own_number() -> None:
    everybody = cluster()
    one = everybody[0]
    assert [POLICY.answered(one, status, everybody, 0.0) for status in (503, 503, 500, 503, 500)] == [
        False, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [200, 304, 404, 429, 499])
def test_an_answer_that_is_no_server_error_forgets_what_was_before(status: int) -> None:
    everybody = cluster()
    one = everybody[0]
    for _ in range(2):
        POLICY.answered(one, 503, everybody, 0.0)
    POLICY.answered(one, status, everybody, 0.0)
    assert not POLICY.answered(one, 503, everybody, 0.0)
    assert one.ejected_until == 0.0


def test_resets_and_timeouts_count_as_gateway_errors() -> None:
    everybody = cluster()
    one = everybody[0]
    assert [POLICY.broke_off(one, everybody, 0.0) for _ in range(3)] == [False, False, True]


def test_by_default_only_failed_connects_eject() -> None:
    everybody, policy = cluster(), OutlierPolicy()
    assert not policy.by_answers
    assert not any(policy.answered(everybody[0], 503, everybody, 0.0) for _ in range(100))
    assert not any(policy.broke_off(everybody[0], everybody, 0.0) for _ in range(100))
    assert policy.connect_failed(everybody[0], everybody, 0.0)


def test_each_ejection_soon_after_another_is_twice_as_long_up_to_the_longest() -> None:
    everybody = cluster()
    one, now, lengths = everybody[0], 0.0, list[float]()
    for _ in range(6):
        lengths.append(fail(one, everybody, now))
        now = one.ejected_until + 1
    assert lengths == [10, 20, 40, 80, 100, 100]


def test_time_that_goes_well_takes_back_what_was_doubled() -> None:
    everybody = cluster()
    one = everybody[0]
    for _ in range(3):
        fail(one, everybody, one.ejected_until)
    well = one.ejected_until + 81  # it was doubled three times, to 80 for the next
    assert fail(one, everybody, well) == 40
    assert fail(one, everybody, one.ejected_until + 10_000) == 10


def test_a_connect_that_works_ends_no_ejection_for_bad_answers() -> None:
    everybody = cluster()
    one = everybody[0]
    one.failures = 0
    fail(one, everybody, 0.0)
    assert not POLICY.connected(one, 1.0)
    assert one.ejected_until == 10.0
    other = everybody[1]
    POLICY.connect_failed(other, everybody, 0.0)
    assert POLICY.connected(other, 1.0)
    assert other.ejected_until == 0.0


def test_never_more_are_away_than_the_percentage_says_and_one_always_may_be() -> None:
    for percent, most in ((0, 1), (10, 1), (25, 2), (50, 5), (100, 10)):
        policy = OutlierPolicy(consecutive_gateway_errors=1, max_ejected_ratio=percent / 100)
        everybody = cluster()
        away = sum(policy.answered(one, 502, everybody, 0.0) for one in everybody)
        assert away == most, percent


def test_an_hour_of_flapping_endpoints_keeps_most_of_the_cluster_and_leaves_the_bad_ones_out() -> None:
    chance = random.Random(5)
    policy = OutlierPolicy(consecutive_gateway_errors=5, base_ejection_s=10, max_ejection_s=300, max_ejected_ratio=0.5)
    everybody = cluster(20)
    bad = everybody[:4]
    served, errors, now = 0, 0, 0.0
    while now < 3600:
        now += 0.01
        in_rotation = [one for one in everybody if one.ejected_until <= now]
        assert len(in_rotation) >= 10
        one = chance.choice(in_rotation)
        failing = chance.random() < (0.95 if one in bad else 0.02)
        served += 1
        errors += failing
        policy.answered(one, 503 if failing else 200, everybody, now)
    assert errors / served < 0.03  # without ejection it would be 0.2
    assert all(one.ejections >= 3 for one in bad)
    assert all(one.ejections == 0 for one in everybody[4:])

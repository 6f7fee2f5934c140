"""When a lease is renewed: hours of it, without waiting for any."""

import random
from datetime import timedelta

import pytest
from toska_common.clients.pace import RenewalPace

TTL = timedelta(seconds=15)


def pace(seed: int = 1, ttl: timedelta = TTL) -> RenewalPace:
    return RenewalPace(ttl, random.Random(seed))


def test_a_lease_is_renewed_three_times_a_ttl_and_never_less() -> None:
    steady = pace()
    pauses = [steady.pause_s() for _ in range(1000)]
    assert max(pauses) <= 5.0
    assert min(pauses) >= 4.25


def test_those_who_start_together_are_spread_after_a_while() -> None:
    clocks = [sum(one.pause_s() for _ in range(50)) for one in (pace(seed) for seed in range(200))]
    assert max(clocks) - min(clocks) > 5.0


def test_after_a_failure_it_is_tried_again_soon_and_then_ever_less_often_up_to_the_usual_pace() -> None:
    bounds: list[float] = []
    for failures in range(1, 12):
        failing = pace()
        for _ in range(failures):
            failing.failed()
        pauses = [failing.pause_s() for _ in range(500)]
        assert min(pauses) >= 0.05
        bounds.append(max(pauses))
    assert bounds[0] <= 0.4
    assert bounds == sorted(bounds[:5]) + bounds[5:]
    assert max(bounds) <= 5.0


def test_a_success_ends_the_haste() -> None:
    recovered = pace()
    recovered.failed()
    recovered.succeeded()
    assert recovered.pause_s() >= 4.25


@pytest.mark.parametrize("ttl", [timedelta(milliseconds=30), timedelta(hours=1)])
def test_a_retry_is_never_later_than_a_renewal(ttl: timedelta) -> None:
    failing = pace(ttl=ttl)
    for _ in range(20):
        failing.failed()
        assert failing.pause_s() <= ttl.total_seconds() / 3

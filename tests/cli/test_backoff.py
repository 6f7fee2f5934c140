"""Waits between the lives of something that dies."""

from toska_cli.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(base_s=0.1, max_s=1.0)
    assert [round(backoff.delay_after(0.0), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_long_life_clears_the_record() -> None:
    backoff = Backoff(base_s=0.1, healthy_after_s=10.0)
    for _ in range(5):
        backoff.delay_after(1.0)
    assert backoff.delay_after(10.0) == 0.1


def test_a_thousand_deaths_overflow_nothing() -> None:
    backoff = Backoff(max_s=10.0)
    assert [backoff.delay_after(0.0) for _ in range(1000)][-1] == 10.0

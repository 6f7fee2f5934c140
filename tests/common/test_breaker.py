"""The circuit breaker, walked through its states by reports and times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.breaker import BreakerPolicy, CircuitBreaker, CircuitState

POLICY = BreakerPolicy(failure_ratio=0.5, min_requests=4, window_s=10, cooldown_s=5, half_open_requests=2)


def call(breaker: CircuitBreaker, now: float, *, ok: bool) -> bool:
    """One call that reports at once; whether it was admitted."""
    permit = breaker.admit(now)
    if permit:
        (breaker.succeed if ok else breaker.fail)(permit, now)
    return bool(permit)


def opened(now: float = 0.0, policy: BreakerPolicy = POLICY) -> CircuitBreaker:
    breaker = CircuitBreaker(policy)
    for _ in range(policy.min_requests):
        call(breaker, now, ok=False)
    assert breaker.state is CircuitState.OPEN
    return breaker


def test_states_are_named_as_pybreaker_names_them() -> None:
    assert [state.value for state in CircuitState] == ["closed", "open", "half-open"]


def test_circuit_stays_closed_below_the_minimum_of_requests() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        call(breaker, 0, ok=False)
    assert breaker.state is CircuitState.CLOSED


def test_circuit_opens_when_the_share_of_failures_is_reached() -> None:
    breaker = CircuitBreaker(POLICY)
    for ok in (True, True, False, False):
        call(breaker, 0, ok=ok)
    assert breaker.state is CircuitState.OPEN


def test_circuit_stays_closed_just_below_the_share() -> None:
    breaker = CircuitBreaker(POLICY)
    for ok in (True, True, True, False, False):
        call(breaker, 0, ok=ok)
    assert breaker.state is CircuitState.CLOSED


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        call(breaker, 0, ok=False)
    call(breaker, 10.5, ok=False)
    assert breaker.state is CircuitState.CLOSED


def test_failures_within_the_window_add_up() -> None:
    breaker = CircuitBreaker(POLICY)
    for now in (0, 3, 6, 8.9):
        call(breaker, now, ok=False)
    assert breaker.state is CircuitState.OPEN


def test_open_circuit_refuses_until_the_cooldown_is_over() -> None:
    breaker = opened()
    assert not call(breaker, 4.99, ok=True)
    assert breaker.retry_after_s(2) == pytest.approx(3)
    assert call(breaker, 5, ok=True)
    assert breaker.state is CircuitState.HALF_OPEN


def test_half_open_circuit_lets_only_its_probes_through() -> None:
    breaker = opened()
    assert breaker.admit(5) and breaker.admit(5)
    assert not breaker.admit(5)
    assert not breaker.admits(5)


def test_circuit_closes_only_when_all_probes_succeeded() -> None:
    breaker = opened()
    call(breaker, 5, ok=True)
    assert breaker.state is CircuitState.HALF_OPEN
    call(breaker, 5, ok=True)
    assert breaker.state is CircuitState.CLOSED


def test_closed_again_circuit_starts_with_a_clean_window() -> None:
    breaker = opened()
    call(breaker, 5, ok=True)
    call(breaker, 5, ok=True)
    call(breaker, 5, ok=False)
    assert breaker.state is CircuitState.CLOSED


def test_failed_probe_opens_the_circuit_for_another_cooldown() -> None:
    breaker = opened()
    call(breaker, 6, ok=False)
    assert breaker.state is CircuitState.OPEN
    assert not breaker.admits(10.9)
    assert breaker.admits(11)


def test_cancelled_call_counts_neither_way() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(20):
        breaker.cancel(breaker.admit(0))
    for ok in (True, True, True, False):
        call(breaker, 0, ok=ok)
    assert breaker.state is CircuitState.CLOSED


def test_cancelled_probe_gives_its_place_back() -> None:
    breaker = opened()
    for _ in range(5):
        permit = breaker.admit(5)
        assert permit
        breaker.cancel(permit)
    assert breaker.state is CircuitState.HALF_OPEN


def test_probe_that_never_reports_is_given_up_after_a_cooldown() -> None:
    breaker = opened()
    assert breaker.admit(5) and breaker.admit(5)
    assert not breaker.admit(9.9)
    assert breaker.retry_after_s(9) == pytest.approx(1)
    assert breaker.admit(10) and breaker.admit(10)
    assert not breaker.admit(10)


def test_call_from_before_the_opening_decides_nothing_afterwards() -> None:
    breaker = CircuitBreaker(POLICY)
    slow = breaker.admit(0)
    for _ in range(4):
        call(breaker, 0, ok=False)
    call(breaker, 5, ok=True)
    breaker.fail(slow, 5)
    assert breaker.state is CircuitState.HALF_OPEN
    breaker.succeed(slow, 5)
    assert breaker.state is CircuitState.HALF_OPEN


def test_listener_is_told_of_every_change() -> None:
    seen: list[tuple[str, str]] = []
    breaker = CircuitBreaker(POLICY, lambda before, after: seen.append((before.value, after.value)))
    for _ in range(4):
        call(breaker, 0, ok=False)
    call(breaker, 5, ok=True)
    call(breaker, 5, ok=True)
    assert seen == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


@pytest.mark.parametrize(
    "wrong", [{"failure_ratio": 0}, {"failure_ratio": 1.1}, {"min_requests": 0}, {"window_s": 0}, {"cooldown_s": -1}]
)
def test_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"positive|failure_ratio"):
        BreakerPolicy(**wrong)  # pyright: ignore[reportArgumentType] - the point of the test


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["ok", "fail", "cancel", "lose"])), max_size=200))
def test_no_history_leaves_a_circuit_that_can_never_close(history: list[tuple[float, str]]) -> None:
    breaker = CircuitBreaker(POLICY)
    now = 0.0
    for pause, outcome in history:
        now += pause
        permit = breaker.admit(now)
        assert not (permit and breaker.state is CircuitState.OPEN)
        if outcome == "ok":
            breaker.succeed(permit, now)
        elif outcome == "fail":
            breaker.fail(permit, now)
        elif outcome == "cancel":
            breaker.cancel(permit)
    for _ in range(2 * POLICY.half_open_requests):
        now += POLICY.cooldown_s + breaker.retry_after_s(now)
        call(breaker, now, ok=True)
    assert breaker.state is CircuitState.CLOSED

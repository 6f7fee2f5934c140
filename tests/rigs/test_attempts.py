"""Attempts at what is true only for a while, or has to be quick: what is forgiven, and what is not."""

import anyio
import pytest
from toska_tests.waiting import in_time, unhindered_s, unless_late


class Attempts:
    """Each takes as long as the next of these says, and fails unless it is to succeed."""

    def __init__(self, *seconds: float, succeeds_at: int = 0) -> None:
        self._seconds = seconds
        self._succeeds_at = succeeds_at
        self.made = 0

    async def __call__(self) -> int:
        self.made += 1
        await anyio.sleep(self._seconds[min(self.made, len(self._seconds)) - 1])
        assert self.made >= self._succeeds_at > 0, "it does not hold"
        return self.made


async def test_a_failure_in_time_counts() -> None:
    attempts = Attempts(0)
    with pytest.raises(AssertionError, match="it does not hold"):
        await unless_late(attempts, limit_s=30)
    assert attempts.made == 1


async def test_a_late_failure_is_forgiven_and_a_late_success_is_one() -> None:
    attempts = Attempts(0.02, succeeds_at=3)
    assert await unless_late(attempts, limit_s=0.01) == 3


async def test_what_fails_late_for_ever_is_an_error() -> None:
    with pytest.raises(AssertionError, match="never in"):
        await unless_late(Attempts(0.02), limit_s=0.01, within=0.05)


async def test_what_is_to_be_quick_is_done_again_until_it_is() -> None:
    ours = iter([2.0, 2.0, 0.0])

    async def attempt() -> int:
        await anyio.sleep(next(ours) / 10)
        return 7

    with pytest.raises(AssertionError, match="never in"):
        await in_time(attempt, limit_s=-1e9, within=0.0)  # no time is short enough
    assert await in_time(attempt, limit_s=30) == 7


async def test_the_clock_of_what_is_unhindered_is_never_ahead() -> None:
    begun, before = anyio.current_time(), unhindered_s()
    await anyio.sleep(0.05)
    assert unhindered_s() - before <= anyio.current_time() - begun + 0.01

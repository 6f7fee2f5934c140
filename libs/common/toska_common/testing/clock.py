"""Time that a test moves by itself."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A `toska_common.clock.Clock` that stands still until it is advanced; both its clocks move together."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC), monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Seconds, as `time.monotonic` gives them."""
        return self._monotonic

    def now(self) -> datetime:
        """The time of day."""
        return self._now

    def advance(self, *, seconds: float) -> None:
        """Let time pass; it never goes back.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

"""Where time comes from, so that a test can own it.

Durations and deadlines are monotonic seconds; wall time is for timestamps that people read.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time: `monotonic` for durations, `now` for timestamps."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return now_utc()


def now_utc() -> datetime:
    """The present as a timezone-aware timestamp."""
    return datetime.now(UTC)

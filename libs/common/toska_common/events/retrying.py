"""How often an event that could not be handled comes again, and when. Pure."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Retrying:
    """Waits that grow by `factor`; after `attempts` in all the event is a dead letter.

    A delay has no jitter: the transports hold delayed events in a few queues of fixed length (AMQP's queues expire from
    the front), and events that failed together may well be tried together by a group that shares the work.

    Attributes:
        attempts: Attempts in all, at least 1.
        first: Wait before the second attempt.
        longest: No wait is longer.
    """

    attempts: int = 8
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=5)
    factor: float = 4.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < timedelta(0) or self.factor < 1:
            raise ValueError("retrying needs attempts of at least 1, waits of at least 0, and a factor of at least 1")

    def delay_after(self, attempt: int) -> timedelta | None:
        """The wait after the failed `attempt` (from 1), or `None` if it was the last."""
        if attempt >= self.attempts:
            return None
        try:
            grown = self.first * self.factor ** (attempt - 1)
        except OverflowError:
            return self.longest
        return min(grown, self.longest)

    @property
    def delays(self) -> tuple[timedelta, ...]:
        """Every wait that there can be, each once, from the shortest."""
        found = {delay for attempt in range(1, self.attempts) if (delay := self.delay_after(attempt)) is not None}
        return tuple(sorted(found))

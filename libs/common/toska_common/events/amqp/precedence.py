"""Whether something of higher priority is on its way, so that nothing lower is handed out before it. Pure.

RabbitMQ sends as many of a queue as were asked for, and the next one for each that is acked. So as long as a queue's
deliveries were all in hand when one of them was acked, there may be more of it, and they are here within a moment.
"""

GRACE_S = 0.05


class Precedence:
    """What is known of queues by their rank; lower ranks go first.

    Args:
        prefetch: Most deliveries of a queue that are not acked.
    """

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._unsettled: dict[int, int] = {}
        self._expected: dict[int, float] = {}

    def arrived(self, rank: int) -> None:
        """A queue sent one."""
        self._unsettled[rank] = self._unsettled.get(rank, 0) + 1
        self._expected.pop(rank, None)

    def settled(self, rank: int, now: float) -> None:
        """One is acked at `now`."""
        count = self._unsettled.get(rank, 0)
        if count >= self._prefetch:
            self._expected[rank] = now + GRACE_S
        self._unsettled[rank] = count - 1

    def wait_s(self, rank: int, now: float) -> float:
        """How long one of this rank has to wait for others; 0 if it may go."""
        if not self._expected:
            return 0.0
        return max((until - now for other, until in self._expected.items() if other < rank), default=0.0)

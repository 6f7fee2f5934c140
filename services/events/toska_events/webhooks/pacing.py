"""When the next request may go to a webhook: by the rate that was agreed, and not before the receiver wants it. Pure.

Times are monotonic seconds.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_HOLD_S = 15 * 60.0
"""A receiver that asks for longer is tried again after this: what it holds up is in hand, and RabbitMQ takes what is in
hand for half an hour for lost."""
ASKING = frozenset({429, 503})
"""Statuses whose Retry-After is obeyed (RFC 6585 §4, RFC 9110 §15.6.4)."""


class Pace:
    """When one webhook's requests may go.

    Args:
        rate: Most requests a minute; `None` for as many as there are.
    """

    def __init__(self, rate: int | None) -> None:
        self._interval_s = 0.0 if rate is None else 60.0 / rate
        self._next = float("-inf")

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may go; 0 if it may now."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """A request goes."""
        self._next = max(self._next, now + self._interval_s)

    def hold(self, seconds: float, now: float) -> None:
        """The receiver wants nothing for so long."""
        self._next = max(self._next, now + seconds)


def read_retry_after(value: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3), within bounds; 0 if it says nothing of use."""
    if value is None:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        # One without a zone is in GMT, which is the only one that there may be.
        seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_HOLD_S)

"""When a request is tried again, how long that waits, and how much of it a cluster takes.

Pure: attempts are counted by whoever makes them, and time comes from outside.
"""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

SLOTS: Final = 10
"""Parts of the budget's second: what is older leaves in steps of a tenth of it."""
_SERVER_ERRORS: Final = frozenset(range(500, 600))


class RetryBudget:
    """What share of a cluster's requests may be repeated: else a cluster that fails gets a multiple of its load.

    In any second there are at most `ratio` times as many retries as requests, or `floor` where those are few. Nothing
    is saved up for longer, so that a cluster which breaks down after a calm day is not overrun in its first second.
    There is one for each cluster and worker: a share of each worker's requests is that share of all of them, so workers
    need not agree, and only the floor grows with their number.

    The request's path pays for one addition, which the cluster makes anyway: `attempts` is how many it has begun so
    far, repeats included.
    """

    __slots__ = ("_marks", "_slot", "spent")

    def __init__(self) -> None:
        self.spent = 0  # retries and hedges so far
        self._slot = -1  # not begun
        self._marks = [(0, 0)] * (SLOTS + 1)  # attempts and retries as they stood when each tenth of a second began

    def tick(self, now: float, attempts: int) -> None:
        """Move on; to be called at least every tenth of a second while there are requests."""
        slot = int(now * SLOTS)
        marks = self._marks
        if self._slot >= 0:
            for step in range(1, min(slot - self._slot, len(marks)) + 1):
                marks[(self._slot + step) % len(marks)] = attempts, self.spent
        self._slot = max(slot, self._slot)

    def spend(self, ratio: float, floor: int, now: float, attempts: int) -> bool:
        """Take one retry out, if there is one left."""
        self.tick(now, attempts)
        # The parts are rounded so that retries are those of a second at least, and requests those of one at most.
        _, spent_long_ago = self._marks[(self._slot + 1) % (SLOTS + 1)]
        attempts_before, spent_before = self._marks[(self._slot + 2) % (SLOTS + 1)]
        requests = attempts - attempts_before - (self.spent - spent_before)
        if self.spent - spent_long_ago + 1 > max(floor, ratio * requests):
            return False
        self.spent += 1
        return True


def statuses_of(conditions: Iterable[str]) -> frozenset[int]:
    """The statuses among named conditions; `5xx` is all from 500 to 599."""
    found = {int(item) for item in conditions if item.isdigit()}
    return frozenset(found | _SERVER_ERRORS if "5xx" in conditions else found)


class RetryRules:
    """A route's retry policy, compiled.

    Attributes:
        conditions: What is repeated besides statuses.
        statuses: Of responses that are repeated.
        try_timeout: Seconds until the head of the response, for each attempt; 0 leaves it to the response timeout.
    """

    __slots__ = (
        "_base", "_chance", "_max", "attempts", "budget_floor", "budget_ratio", "conditions", "idempotency_key",
        "max_retry_after", "replay_bytes", "statuses", "try_timeout",
    )  # fmt: skip

    def __init__(self, settings: dict[str, Any], chance: Callable[[], float] = random.random) -> None:
        self.attempts: int = settings["attempts"]
        self.conditions = frozenset[str](settings["retry_on"])
        self.statuses = statuses_of(settings["retry_on"]) if self.attempts > 1 else frozenset[int]()
        self.try_timeout: float = settings["per_try_timeout"] or 0.0
        self.budget_ratio: float = settings["budget"]
        self.budget_floor: int = settings["budget_floor"]
        self.idempotency_key: bool = settings["idempotency_key"]
        self.replay_bytes: int = settings["replay_bytes"]
        self.max_retry_after: float = settings["max_retry_after"]
        self._base: float = settings["backoff"]["base"]
        self._max: float = settings["backoff"]["max"]
        self._chance = chance

    def pause(self, retry: int) -> float:
        """Seconds before the `retry`th retry, from 1 on.

        Any time between none and the whole (full jitter): requests that failed together must not come back together.
        """
        return self._chance() * min(self._max, self._base * 2 ** (retry - 1))


class FallbackRules:
    """A route's fallback, compiled: another cluster, or an answer as status, content type and body."""

    __slots__ = ("answer", "cluster", "conditions", "statuses")

    def __init__(self, settings: dict[str, Any]) -> None:
        self.conditions = frozenset[str](settings["on"])
        self.statuses = statuses_of(settings["on"])
        self.cluster: str = settings["cluster"] or ""
        respond = settings["respond"]
        self.answer: tuple[int, str, bytes] | None = None
        if respond is not None:
            self.answer = respond["status"], respond["content_type"], respond["body"].encode()


def retry_after_s(value: bytes, clock: datetime | None = None) -> float:
    """What a Retry-After asks for (RFC 9110 §10.2.3), in seconds; 0 if it cannot be read or is over.

    Args:
        value: Of the field.
        clock: What a date is seen from; default: now.
    """
    text = value.strip().decode("latin-1")
    if text.isdigit() and text.isascii():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:  # "-0000": UTC, and nothing said about where
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (clock or datetime.now(UTC))).total_seconds())

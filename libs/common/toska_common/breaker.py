"""A circuit breaker: stop calling what keeps failing, look again after a while, trust it only once it has proved well.

Pure: calls report what they saw together with `now` (monotonic seconds), and the breaker answers whether the next one
may go. Whoever calls owns the clock.

               failure_ratio of at least min_requests within the window
      closed ────────────────────────────────────────────────────────────▶ open
        ▲                                                                    │  cooldown is over
        │  half_open_requests probes succeeded                               ▼
        └──────────────────────────────────────────────────────────────  half-open
                                                  a probe failed: back to open

- Only half_open_requests probes go at a time; the rest is refused as while open. A probe that never reports is given
  up after a cooldown, so a lost one cannot keep the circuit half-open for ever.
- A call counts in the state that admitted it: one that began before the circuit opened decides nothing afterwards.
- A cancelled call is neither a success nor a failure; it gives its place back.

The states have pybreaker's names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

BUCKETS = 10
"""Parts of the rolling window: what is older than the window leaves in steps of a tenth of it."""


class CircuitState(StrEnum):
    """What a circuit lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


# A member is looked up through its enumeration's metaclass, which takes longer than all the rest of a call's admission.
_CLOSED = CircuitState.CLOSED
_OPEN = CircuitState.OPEN
_HALF_OPEN = CircuitState.HALF_OPEN


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit opens and closes.

    Attributes:
        failure_ratio: Share of failed calls that opens it, in (0, 1].
        min_requests: With fewer calls in the window nothing is decided.
        window_s: Length of the rolling window.
        cooldown_s: How long it stays open before the first probe.
        half_open_requests: Probes that may go at once, and that must succeed to close it.
    """

    failure_ratio: float = 0.5
    min_requests: int = 20
    window_s: float = 10.0
    cooldown_s: float = 5.0
    half_open_requests: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.failure_ratio <= 1:
            raise ValueError("failure_ratio lies above 0 and is at most 1")
        if min(self.min_requests, self.half_open_requests) < 1 or min(self.window_s, self.cooldown_s) <= 0:
            raise ValueError("min_requests, half_open_requests, window_s and cooldown_s are positive")


Listener = Callable[[CircuitState, CircuitState], None]
"""Told of each change: `(before, after)`. Runs inside the call that caused it; it must not raise."""


class CircuitBreaker:
    """The circuit of one endpoint, or of whatever else fails as one.

    `permit = breaker.admit(now)`; if there is one, make the call and then report it exactly once, by
    `succeed(permit, now)`, `fail(permit, now)` or `cancel(permit)`.
    """

    __slots__ = (
        "_buckets_per_s",
        "_changed_at",
        "_counted_at",
        "_failed",
        "_generation",
        "_listener",
        "_policy",
        "_probed_at",
        "_probes",
        "_proved",
        "_slot",
        "_state",
        "_step",
        "_total",
    )

    def __init__(self, policy: BreakerPolicy, listener: Listener | None = None) -> None:
        self._policy = policy
        self._listener = listener
        self._state = CircuitState.CLOSED
        self._generation = 1
        """Number of the current stay in a state; a permit is the generation that gave it."""
        self._changed_at = 0.0
        self._buckets_per_s = BUCKETS / policy.window_s
        self._counted_at = 0.0
        self._step = 0  # the window's newest bucket, counted from the beginning of time, ...
        self._slot = 0  # ... and its place
        self._total = [0] * BUCKETS
        self._failed = [0] * BUCKETS
        self._probes = 0
        self._probed_at = 0.0
        self._proved = 0

    @property
    def state(self) -> CircuitState:
        """The state as of the last call; an open circuit turns half-open when somebody asks after its cooldown."""
        return self._state

    def admits(self, now: float) -> bool:
        """Whether `admit` would give a permit, without taking one."""
        if self._state is _CLOSED:
            return True
        if self._state is _OPEN:
            return now >= self._changed_at + self._policy.cooldown_s
        return self._has_free_probe() or self._probes_are_lost(now)

    def admit(self, now: float) -> int:
        """Ask to make a call: a permit to report it with, or 0 if it must not be made."""
        if self._state is _CLOSED:
            return self._generation
        if self._state is _OPEN:
            if now < self._changed_at + self._policy.cooldown_s:
                return 0
            self._enter(CircuitState.HALF_OPEN, now)
        elif not self._has_free_probe():
            if not self._probes_are_lost(now):
                return 0
            self._probes = 0
        self._probes += 1
        self._probed_at = now
        return self._generation

    def succeed(self, permit: int, now: float) -> None:
        """The call got an answer that does not speak against the endpoint."""
        if permit != self._generation:
            return
        if self._state is _CLOSED:
            if now != self._counted_at:
                self._turn(now)
            self._total[self._slot] += 1
        elif self._state is _HALF_OPEN:
            self._probes = max(0, self._probes - 1)
            self._proved += 1
            if self._proved >= self._policy.half_open_requests:
                self._enter(CircuitState.CLOSED, now)

    def fail(self, permit: int, now: float) -> None:
        """The endpoint failed the call."""
        if permit != self._generation:
            return
        if self._state is _HALF_OPEN:
            self._enter(CircuitState.OPEN, now)
        elif self._state is _CLOSED:
            if now != self._counted_at:
                self._turn(now)
            self._total[self._slot] += 1
            self._failed[self._slot] += 1
            total, failed = sum(self._total), sum(self._failed)
            if total >= self._policy.min_requests and failed >= total * self._policy.failure_ratio:
                self._enter(CircuitState.OPEN, now)

    def cancel(self, permit: int) -> None:
        """The caller gave the call up; that says nothing about the endpoint."""
        if permit == self._generation and self._state is _HALF_OPEN:
            self._probes = max(0, self._probes - 1)

    def report(self, permit: int, now: float, *, failed: bool | None) -> None:
        """The call failed, or succeeded, or was given up (`None`)."""
        if failed is None:
            self.cancel(permit)
        elif failed:
            self.fail(permit, now)
        else:
            self.succeed(permit, now)

    def retry_after_s(self, now: float) -> float:
        """Seconds until a refused call may be worth another try; 0 if one would be admitted now."""
        if self.admits(now):
            return 0.0
        since = self._changed_at if self._state is _OPEN else self._probed_at
        return max(0.0, since + self._policy.cooldown_s - now)

    def enter(self, state: CircuitState, now: float) -> None:
        """Put the circuit into a state from outside: an operator's switch, or what another process has found out.

        Args:
            state: The state; one that it is in already begins anew.
            now: When it came to be so, in monotonic seconds, which may be a while ago: the cooldown counts from there.
        """
        self._enter(state, now)

    def _has_free_probe(self) -> bool:
        return self._probes + self._proved < self._policy.half_open_requests

    def _probes_are_lost(self, now: float) -> bool:
        return now >= self._probed_at + self._policy.cooldown_s

    def _turn(self, now: float) -> None:
        """Bring the window up to `now`; one that is a little late counts in the newest bucket."""
        self._counted_at = now
        step = int(now * self._buckets_per_s)
        gone = step - self._step
        if gone > 0:
            for passed in range(1, min(gone, BUCKETS) + 1):
                slot = (self._step + passed) % BUCKETS
                self._total[slot] = self._failed[slot] = 0
            self._step = step
            self._slot = step % BUCKETS

    def _enter(self, state: CircuitState, now: float) -> None:
        before, self._state = self._state, state
        self._generation += 1
        self._changed_at = now
        self._probes = self._proved = 0
        if state is _CLOSED:
            self._total = [0] * BUCKETS
            self._failed = [0] * BUCKETS
        if self._listener is not None:
            self._listener(before, state)

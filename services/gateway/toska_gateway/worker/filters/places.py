"""A filter in its place on a route: calls it, and turns whatever it does into something that can be answered.

    serving ──too slow three times in a row──▶ suspended ──a while later, one call──▶ serving, or suspended again

Only calls that hold the loop suspend: each costs every other request of the worker as long as it lasts, so such a
filter is left alone, and its route refuses (a filter may be what guards it, so none is passed by). What is told of a
failure is the filter, the kind of error and its place in the code. Its text is not told: it may quote the message.
"""

import contextlib
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from toska_common.filters import Answer, BodyFilter, Filter, Misuse, Reject, Request, Response

from toska_gateway.worker.filters.guard import Guard, Overdue
from toska_gateway.worker.filters.loading import place_of
from toska_gateway.worker.policies import Instead

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.plane import Plane

SLOW_S: Final = 0.05
"""A call that holds the loop longer is told of."""
_SUSPENDED_AFTER: Final = 3
SUSPENDED_S: Final = 10.0
_TELL_EVERY_S: Final = 10.0
"""A failure of each kind is told so often, with how often there was one."""

T = TypeVar("T")


class Place:
    """One instance of a filter, with its limit of time.

    Args:
        use: The filter's class, as the route names it; what it is called in the log and in metrics.
        route: Name of the route.
        instance: The filter.
        timeout_s: How long one call may take.
    """

    __slots__ = (
        "__weakref__", "_guard", "_overdue", "_plane", "_resumes_at", "_told", "_untold", "filter", "on_request",
        "on_response", "route", "timeout_s", "use",
    )  # fmt: skip

    def __init__(self, plane: "Plane", guard: Guard, use: str, route: str, instance: Filter, timeout_s: float) -> None:
        kind = type(instance)
        self.use = use
        self.route = route
        self.filter = instance
        self.timeout_s = timeout_s
        self.on_request = instance.on_request if kind.on_request is not Filter.on_request else None
        self.on_response = instance.on_response if kind.on_response is not Filter.on_response else None
        self._plane = plane
        self._guard = guard
        self._overdue = 0  # calls in a row that held the loop for too long
        self._resumes_at = 0.0
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def call(self, hook: Callable[[Any], T], message: "Request | Response | bytes") -> T:
        """Call one of its hooks.

        Raises:
            Instead: It failed, took too long, or refused the request.
        """
        if self._resumes_at > self._plane.now:
            raise Instead(self._refuse_for_now)
        guard = self._guard
        guard.limit_s = self.timeout_s
        guard.since = since = perf_counter()
        try:
            try:
                result = hook(message)
            finally:
                guard.since = 0.0
        except Reject as reject:
            raise refusal(reject) from None
        except Overdue:  # also if it came between the hook's last step and ours
            guard.since = 0.0
            raise self._was_overdue() from None
        except Exception as error:  # noqa: BLE001 - an operator's code, which may fail in any way
            raise self.failed(error) from None
        took = perf_counter() - since
        if took > SLOW_S:
            self.was_slow(took)
        elif self._overdue:
            self._overdue = 0
        return result

    def step(self, send: Callable[[Any], T], value: Any) -> T:
        """Go one step further in a call that waits; what it raises is the caller's to sort out, but for the time.

        Raises:
            Instead: The step held the loop for too long.
        """
        guard = self._guard
        guard.limit_s = self.timeout_s
        guard.since = since = perf_counter()
        try:
            try:
                return send(value)
            finally:
                guard.since = 0.0
                if perf_counter() - since > SLOW_S:
                    self.was_slow(perf_counter() - since)
        except Overdue:
            guard.since = 0.0
            raise self._was_overdue() from None

    def end_body(self, body_filter: BodyFilter) -> bytes:
        """The rest of a body that is whole.

        Raises:
            Instead: As of `call`.
        """
        return self.call(lambda _: body_filter.finish(), b"")

    def abort_body(self, body_filter: BodyFilter) -> None:
        """Tell a filter that its body was broken off; nobody waits for what it makes of that."""
        with contextlib.suppress(Instead):
            self.call(lambda _: body_filter.abort(), b"")

    def failed(self, error: BaseException) -> Instead:
        """What to answer after an error."""
        reason = f"{type(error).__name__}: {error}" if isinstance(error, Misuse) else type(error).__name__
        self._tell("error", "filter_failed", "failed", reason=reason + place_of(error))
        return self._instead(500, "filter-failed", f"the filter {self.use} failed")

    def answered_wrongly(self, result: object) -> Instead:
        """What to answer when a hook returns something that it cannot."""
        self._tell("error", "filter_failed", "failed", reason=f"it returned a {type(result).__name__}")
        return self._instead(500, "filter-failed", f"the filter {self.use} failed")

    def timed_out(self) -> Instead:
        """What to answer when a call that waits has not come to an end."""
        self._tell("error", "filter_timed_out", "timeout", timeout_seconds=self.timeout_s)
        return self._instead(504, "filter-timeout", f"the filter {self.use} did not decide in time")

    def was_slow(self, seconds: float) -> None:
        """Tell that a call held the loop."""
        self._tell("warning", "filter_held_the_loop", "slow", milliseconds=round(seconds * 1000))

    def _was_overdue(self) -> Instead:
        self._overdue += 1
        suspended = self._overdue >= _SUSPENDED_AFTER
        if suspended:
            # (one less, so that a single call that is too slow again is enough)
            self._overdue = _SUSPENDED_AFTER - 1
            self._resumes_at = self._plane.loop.time() + SUSPENDED_S
        self._tell("error", "filter_interrupted", "timeout", timeout_seconds=self.timeout_s, suspended=suspended)
        return self._instead(504, "filter-timeout", f"the filter {self.use} did not decide in time")

    def _refuse_for_now(self, exchange: "Exchange") -> None:
        self._plane.stats.route(self.route).filtered(self.use, "suspended")
        wait = max(1, round(self._resumes_at - self._plane.now))
        exchange.fail(503, "filter-suspended", f"the filter {self.use} is not asked for a while", retry_after=wait)

    def _instead(self, status: int, code: str, detail: str) -> Instead:
        return Instead(lambda exchange: exchange.fail(status, code, detail))

    def _tell(self, level: str, event: str, outcome: str, **fields: Any) -> None:
        self._plane.stats.route(self.route).filtered(self.use, outcome)
        now = self._plane.loop.time()
        before = self._untold.get(event, 0)
        if now < self._told.get(event, 0.0):
            self._untold[event] = before + 1
            return
        self._told[event] = now + _TELL_EVERY_S
        self._untold[event] = 0
        self._plane.tell(level, event, {"route": self.route, "filter": self.use, "untold": before, **fields})


def refusal(reject: Reject) -> Instead:
    """What to answer when a filter refuses a request."""
    extra = reject.headers.wire()
    return Instead(lambda exchange: exchange.fail(reject.status, "filter-refused", reject.detail, extra=extra))


def give(exchange: "Exchange", answer: Answer) -> None:
    """Answer what a filter answers."""
    exchange.answer(answer.status, answer.content_type, answer.body, extra=answer.headers.wire())

"""A request's attempts: the endpoint and the connection of each, and what is done when one comes to nothing.

    chosen ─▶ waiting (for a connection) ─▶ sent ─▶ answered
       ▲          │                          │         │ by a status that is tried again
       └──────────┴──── pause ───────────────┴─────────┘
                          only what may be done twice, as often as the route says, within the cluster's budget

An attempt of a route that hedges has rivals (`rival`), which go on if it fails. When nothing is left to try, a fallback
answers, or the caller is told. Nothing here happens once a byte of the response has gone.
"""

from typing import TYPE_CHECKING, Final

from toska_gateway.worker.attempt import failure_of
from toska_gateway.worker.dispatch import Dispatch
from toska_gateway.worker.drain import Drain
from toska_gateway.worker.endpoint import Endpoint, TargetRefused
from toska_gateway.worker.http1 import IDEMPOTENT, ResponseHead, field_name, field_value
from toska_gateway.worker.retries import FallbackRules, retry_after_s
from toska_gateway.worker.rival import Race, Rival, cancelled

if TYPE_CHECKING:
    from toska_gateway.worker.upstream import Upstream

_UPSTREAMS_FAULT: Final = frozenset({502, 504})
"""Statuses of our own answers that count against an upstream; 503 is for what we did not even try."""
_OUR_FAULT: Final = frozenset({"target-refused", "policy-timeout", "filter-refused", "filter-timeout"})
"""Codes that do not, whatever their status."""
_CONDITIONS: Final = {
    "upstream-unavailable": "unavailable",
    "circuit-open": "circuit_open",
    "upstream-overloaded": "overloaded",
    "upstream-connect-failed": "connect",
    "upstream-tls-failed": "connect",
    "upstream-reset": "reset",
    "bad-upstream-response": "reset",
    "upstream-timeout": "timeout",
}
"""What a fallback calls the reasons for which a request could not be served."""


def is_upstreams_fault(status: int, code: str) -> bool:
    """Whether an answer of our own speaks against the upstream."""
    return status in _UPSTREAMS_FAULT and code not in _OUR_FAULT


class Attempts(Dispatch):
    """The part of an exchange that does something about attempts that come to nothing."""

    __slots__ = ()

    def answer(self, status: int, content_type: str, body: bytes, *, extra: bytes = b"") -> None:
        """Answer with something of our own that is no problem."""
        raise NotImplementedError

    # -- what an attempt has besides, of routes that ask for it

    def _watch(self) -> None:
        """Have the attempt's own timers run: those of routes that ask for it."""
        try_timeout, hedge = self.route.retry.try_timeout, self.route.hedge
        if try_timeout:
            self._timer = self.plane.loop.call_later(try_timeout, self._on_try_timeout)
        if hedge is not None and self.is_repeatable():
            self._race = Race(self, hedge)

    @property
    def may_be_doubled(self) -> bool:
        """Whether another endpoint may be asked now, while this one is waited for."""
        return self._active and self.request_done and self.is_repeatable()

    # -- how it ends

    def connect_failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """The connection that was being made for this exchange came to nothing."""
        if not self.wants(endpoint):
            return
        self.waiting = False
        if isinstance(error, TargetRefused):
            self.fail(502, "target-refused", str(error))
            return
        retry_after = self.cluster.returns_in(self.plane.loop.time())
        if isinstance(error, TimeoutError):
            detail = f"no connection to {endpoint} within the connect timeout"
            self._attempt_failed("connect", 504, "upstream-timeout", detail, retry_after)
        elif reason := failure_of(error):
            detail = f"no TLS with {endpoint}: {reason}"
            self._attempt_failed("connect", 502, "upstream-tls-failed", detail, retry_after)
        else:
            detail = f"cannot connect to {endpoint}"
            self._attempt_failed("connect", 502, "upstream-connect-failed", detail, retry_after)

    def _lost_before_response(self, upstream: "Upstream") -> None:
        """The connection broke with nothing of a response passed on."""
        if reason := failure_of(upstream.error):  # TLS 1.3: only now do we hear that they do not want us
            self._attempt_failed("reset", 502, "upstream-tls-failed", f"no TLS with {upstream.endpoint}: {reason}")
        else:
            detail = f"{upstream.endpoint} closed the connection before it answered"
            self._attempt_failed("reset", 502, "upstream-reset", detail)

    def _on_try_timeout(self) -> None:
        if not self.request_done:  # it is the client that is waited for, and that has timeouts of its own
            self._timer = self.plane.loop.call_later(self.route.retry.try_timeout, self._on_try_timeout)
            return
        self._timer = None
        endpoint = self.endpoint
        if self._upstream is not None:
            self._upstream.time_out()
        self._attempt_failed("timeout", 504, "upstream-timeout", f"{endpoint} did not answer in the time of a try")

    def _timed_out(self) -> None:
        """There was no response within the response timeout, or within the request's."""
        self._end_race()
        detail = f"cluster {self.cluster.name} did not answer in time"
        if self._active and self._has_time(0.0):
            self._attempt_failed("timeout", 504, "upstream-timeout", detail)
        else:
            self.fail(504, "upstream-timeout", detail)

    def _attempt_failed(self, condition: str, status: int, code: str, detail: str, retry_after: int = 0) -> None:
        """The attempt came to nothing: leave it to its rivals, repeat it, or say so."""
        sent = self._upstream is not None
        if sent and self.endpoint is not None:  # (of failed connects the connector tells the cluster)
            self.plane.note(self.endpoint, 0)
        if self._race is not None and self._race.is_on:
            self._end_attempt(failed=True)
        else:
            self.attempts_failed(condition, status, code, detail, retry_after, sent=sent)

    def attempts_failed(
        self, condition: str, status: int, code: str, detail: str, retry_after: int = 0, *, sent: bool
    ) -> None:
        """Nothing is under way any more, or will come to anything: repeat it, or say so.

        Args:
            condition: What the last attempt failed by, in the words of `retry_on`.
            status: Of the answer, if there is nothing else to try.
            code: The problem's type.
            detail: For the caller.
            retry_after: Seconds, if known.
            sent: Whether an upstream may have seen the request.
        """
        elsewhere = len(self.cluster.endpoints) > 1 or self.cluster.failover is not None
        pause = -1.0
        if code == "upstream-tls-failed" and not elsewhere:
            pass  # who does not believe a certificate does not believe it the next time either
        elif sent:
            pause = self.route.retry.pause(self._tries) if self.is_repeatable() else pause
        elif elsewhere and self._tries == 1:
            pause = 0.0  # nothing was sent, so even a POST may go there; and whoever is there has not failed yet
        elif elsewhere or self._is_in_rotation():
            pause = self.route.retry.pause(self._tries)
        if pause >= 0 and condition in self.route.retry.conditions and self._may_repeat(pause):
            self._repeat(pause)
        else:
            self.fail(status, code, detail, retry_after=retry_after)

    def _is_in_rotation(self) -> bool:
        return self.endpoint is not None and self.endpoint.ejected_until <= self.plane.now

    # -- again

    def is_repeatable(self) -> bool:
        """Whether what has been sent may be sent once more (RFC 9110 §9.2.2), and is still here."""
        return (
            self._replay is not None
            and not self.upgrading
            and (
                self.head.method in IDEMPOTENT
                or (self.route.retry.idempotency_key and self.head.field(b"idempotency-key") is not None)
            )
        )

    def spend(self) -> bool:
        """Take one retry out of the cluster's budget, if there is one left."""
        cluster, rules, plane = self.cluster, self.route.retry, self.plane
        if cluster.budget.spend(rules.budget_ratio, rules.budget_floor, plane.now, cluster.started):
            return True
        plane.stats.budget_refusals += 1
        return False

    def _has_time(self, pause: float) -> bool:
        return not self.expires or self.plane.now + pause < self.expires

    def _may_repeat(self, pause: float) -> bool:
        return self._tries < self.route.retry.attempts and self._has_time(pause) and self.spend()

    def _repeat(self, pause: float) -> None:
        self.plane.stats.retries += 1
        tried = self.endpoint
        self._end_race()
        self._end_attempt(failed=True)
        if self._replay is not None:  # else nothing was sent, and the body is still waiting to be
            self._pending_body = list(self._replay)
        self.down.resume_if_paused()  # if it was the lost connection that took no more
        if not pause:
            self._dispatch(tried)
            return
        self.down.set_deadline(self.route.response_timeout)
        self._timer = self.plane.loop.call_later(pause, self._go_again, tried)

    def _go_again(self, tried: Endpoint | None) -> None:
        self._timer = None
        self._dispatch(tried)

    # -- responses that are not what was hoped for

    def _is_welcome(self, head: ResponseHead) -> bool:
        """Whether a response is the one to pass on; if it is not, something else is under way instead."""
        self._stop_timer()
        if head.status in self.route.retry.statuses and self._tries_for_better(head):
            return False
        self._end_race()
        fallback = self.route.fallback
        if fallback is not None and head.status in fallback.statuses and self._may_fall_back(fallback, sent=True):
            self._withhold(head.status)
            self._fall_back(fallback, str(head.status))
            return False
        return True

    def _tries_for_better(self, head: ResponseHead) -> bool:
        if self._race is not None and self._race.is_on:
            self._withhold(head.status)
            return True
        rules = self.route.retry
        asked = _asked_pause(head)
        pause = max(rules.pause(self._tries), asked)
        if asked > rules.max_retry_after or not self.is_repeatable():
            return False
        if self._permit:
            self._report(head.status >= 500)
        breaker = self.cluster.breaker
        if (breaker is not None and not breaker.admits(self.plane.now)) or not self._may_repeat(pause):
            return False
        self._withhold(head.status)
        self._repeat(pause)
        return True

    def _withhold(self, status: int) -> None:
        """Keep a response from the client: its connection reads the rest of it for nobody."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None and self.request_done:
            Drain(upstream)
        elif upstream is not None:
            upstream.close()
        if self.endpoint is not None:
            self.plane.note(self.endpoint, status)
        self._end_attempt(failed=status >= 500)

    def adopt(self, rival: Rival, upstream: "Upstream") -> None:
        """Go on with the attempt of a rival that has the response."""
        self._end_race()
        if self._active:
            if self._upstream is not None and self.endpoint is not None:
                cancelled(self.endpoint, self.sent, self.plane.now)
            self._end_attempt(failed=None)
        self.endpoint, self._permit, self.sent = rival.endpoint, rival.permit, rival.sent
        self._active = True
        self._upstream = upstream
        upstream.exchange = self

    # -- elsewhere

    def _turns_elsewhere(self, status: int, code: str) -> bool:
        """Have the fallback answer instead of a problem; tells whether it does."""
        fallback, condition = self.route.fallback, _CONDITIONS.get(code)
        if fallback is None or condition is None:
            return False
        sent = self._upstream is not None
        if condition == "timeout" and not sent:
            condition = "connect"
        if condition not in fallback.conditions or not self._may_fall_back(fallback, sent=sent):
            return False
        self._end_race()
        self._end_attempt(failed=is_upstreams_fault(status, code) or None)
        self._fall_back(fallback, condition)
        return True

    def _may_fall_back(self, fallback: FallbackRules, *, sent: bool) -> bool:
        if self.fallen or self.responding:
            return False
        if fallback.answer is not None:
            return True
        there = self.plane.cluster(fallback.cluster) is not None
        return there and self._has_time(0.0) and (not sent or self.is_repeatable())

    def _fall_back(self, fallback: FallbackRules, condition: str) -> None:
        self.fallen = True
        self.plane.stats.fallbacks += 1
        why = b"x-toska-fallback: %b\r\n" % condition.encode()
        if fallback.answer is not None:
            self.answer(*fallback.answer, extra=why)
            return
        cluster = self.plane.cluster(fallback.cluster)
        assert cluster is not None  # noqa: S101 - as `_may_fall_back` has seen
        self.added += why
        self.cluster, self._home, self._tries = cluster, None, 0
        if self._replay is not None:
            self._pending_body = list(self._replay)
        self._dispatch(None)


def _asked_pause(head: ResponseHead) -> float:
    """Seconds that a response asks to be left alone for."""
    return max(
        (retry_after_s(field_value(part)) for part in head.parts[1:] if field_name(part) == b"retry-after"), default=0.0
    )

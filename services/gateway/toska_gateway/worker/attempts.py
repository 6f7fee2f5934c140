"""A request's attempts: the endpoint and the connection of each, and what is done when one comes to nothing.

    chosen ─▶ waiting (for a connection) ─▶ sent ─▶ answered
       ▲          │                          │         │ by a status that is tried again
       └──────────┴──── pause ───────────────┴─────────┘
                          only what may be done twice, as often as the route says, within the cluster's budget

An attempt of a route that hedges has rivals (`rival`), which go on if it fails. When nothing is left to try, a fallback
answers, or the caller is told. Nothing here happens once a byte of the response has gone.
"""

import asyncio
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.attempt import failure_of
from toska_gateway.worker.caller import Caller
from toska_gateway.worker.cluster import Cluster, Endpoint, TargetRefused
from toska_gateway.worker.drain import Drain
from toska_gateway.worker.http1 import IDEMPOTENT, RequestHead, ResponseHead, field_name, field_value
from toska_gateway.worker.retries import FallbackRules, retry_after_s
from toska_gateway.worker.rival import Race, Rival, cancelled

if TYPE_CHECKING:
    from toska_gateway.worker.downstream import Downstream
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.spans import Trace
    from toska_gateway.worker.table import Route
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
_OVERLOADED_S: Final = 1
"""Retry-After of what a limit refused: nobody knows when there will be room, and it changes from moment to moment."""


def is_upstreams_fault(status: int, code: str) -> bool:
    """Whether an answer of our own speaks against the upstream."""
    return status in _UPSTREAMS_FAULT and code not in _OUR_FAULT


class Attempts(Caller):
    """The part of an exchange that is towards the upstream.

    `Exchange` is the only heir, and sets all attributes itself: one call less for each request.

    Attributes:
        endpoint: Of the attempt that is being made, or was made last.
        fallen: The fallback has been turned to, so there is no other.
        queued_at: Monotonic seconds since when a connection is waited for, while the cluster has none to give.
        sent: When the attempt was, by `perf_counter`.
    """

    __slots__ = (
        "_active", "_blame", "_home", "_pending_body", "_permit", "_race", "_replay", "_replay_bytes", "_request",
        "_timer", "_tries", "_upstream", "added", "cluster", "down", "endpoint", "expires", "fallen", "head",
        "is_head", "plane", "queued_at", "request_done", "responding", "route", "sent", "status", "trace",
        "upgrading", "waiting",
    )  # fmt: skip

    plane: "Plane"
    down: "Downstream"
    head: RequestHead
    route: "Route"
    cluster: Cluster
    endpoint: Endpoint | None
    added: bytes
    expires: float
    fallen: bool
    is_head: bool
    queued_at: float
    request_done: bool
    responding: bool
    sent: float
    status: int
    trace: "Trace | None"
    upgrading: bool
    waiting: bool
    _active: bool
    _blame: bool | None
    _home: Endpoint | None
    _pending_body: list[bytes]
    _permit: int
    _race: Race | None
    _replay: list[bytes] | None
    _replay_bytes: int
    _request: bytes
    _timer: asyncio.TimerHandle | None
    _tries: int
    _upstream: "Upstream | None"

    def fail(self, status: int, code: str, detail: str, *, retry_after: int = 0, extra: bytes = b"") -> None:
        """Answer with a problem."""
        raise NotImplementedError

    def answer(self, status: int, content_type: str, body: bytes, *, extra: bytes = b"") -> None:
        """Answer with something of our own that is no problem."""
        raise NotImplementedError

    # -- one attempt

    def _dispatch(self, tried: Endpoint | None) -> None:
        """Choose an endpoint, another than `tried` if there is one, and send or wait for a connection."""
        cluster = self.cluster
        if cluster.guarded and not self._is_admitted(cluster):
            return
        endpoint = self._home
        if endpoint is None or endpoint is tried:
            endpoint = cluster.pick(tried, self.key if cluster.key_of is not None else 0, self.plane.now)
        if endpoint is None:
            self.fail(503, "upstream-unavailable", f"cluster {self.cluster.name} has no endpoints")
            return
        self._tries += 1
        self.plane.stats.attempts += 1
        self.endpoint = endpoint
        cluster.started += 1
        endpoint.in_flight += 1
        endpoint.requests += 1
        self._active = True
        self.down.set_deadline(self.route.response_timeout)
        if self.route.watched:
            self._watch()
        idle = endpoint.idle
        if idle and endpoint is not tried:  # (after a failure not on another one that may be just as dead)
            self.send_on(idle.pop())
            return
        self.waiting = True
        if cluster.connections < cluster.max_connections or cluster.close_oldest_idle():
            self.connect()
        elif len(cluster.pending) < cluster.max_pending:
            self.queued_at = self.plane.loop.time()
            cluster.pending.append(self)
        else:
            detail = f"cluster {cluster.name} has all its connections in use, and its queue is full"
            self._refuse(detail)

    def _is_admitted(self, cluster: Cluster) -> bool:
        if cluster.max_requests and cluster.is_full:
            self._refuse(f"cluster {cluster.name} has all the requests in flight that it may have")
            return False
        breaker, now = cluster.breaker, self.plane.now
        if breaker is None:
            return True
        self._permit = breaker.admit(now)
        if self._permit:
            return True
        self.plane.stats.circuit_refusals += 1
        wait = max(1, ceil(breaker.retry_after_s(now)))
        self.fail(503, "circuit-open", f"cluster {cluster.name} fails too often", retry_after=wait)
        return False  # also where a fallback has taken the request over, and holds a permit of another circuit

    def _refuse(self, detail: str) -> None:
        self.plane.stats.overloads += 1
        self.fail(503, "upstream-overloaded", detail, retry_after=_OVERLOADED_S)

    def give_up_waiting(self) -> None:
        """No connection came free in the time that a request may wait for one."""
        self._refuse(f"cluster {self.cluster.name} had no free connection for too long")

    def _watch(self) -> None:
        """Have the attempt's own timers run: those of routes that ask for it."""
        try_timeout, hedge = self.route.retry.try_timeout, self.route.hedge
        if try_timeout:
            self._timer = self.plane.loop.call_later(try_timeout, self._on_try_timeout)
        if hedge is not None and self.is_repeatable():
            self._race = Race(self, hedge)

    @property
    def key(self) -> int:
        """What the cluster's balancer goes by, if it goes by a key."""
        key_of = self.cluster.key_of
        return 0 if key_of is None else key_of(self.head, self.down)

    @property
    def is_trying(self) -> bool:
        """Whether an attempt of its own is under way."""
        return self._active

    @property
    def may_be_doubled(self) -> bool:
        """Whether another endpoint may be asked now, while this one is waited for."""
        return self._active and self.request_done and self.is_repeatable()

    def whole_request(self) -> bytes:
        """The request as it is sent, with its body."""
        return self._request + b"".join(self._replay or ())

    def connect(self) -> None:
        """Open a connection to the chosen endpoint."""
        if self.endpoint is not None:
            self.plane.connector.connect(self.endpoint, self)

    @property
    def connect_timeout(self) -> float:
        """Seconds that a connection may take."""
        return self.route.connect_timeout

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether a connection to `endpoint`, just made for this exchange, is still of use to it."""
        return self.waiting and self.endpoint is endpoint

    def take(self, upstream: "Upstream") -> None:
        """Take a connection that another exchange has freed, perhaps to another endpoint than the one chosen."""
        chosen, endpoint = self.endpoint, upstream.endpoint
        if endpoint is not chosen and chosen is not None:
            chosen.requests -= 1
            chosen.in_flight -= 1
            endpoint.requests += 1
            endpoint.in_flight += 1
            self.endpoint = endpoint
        self.send_on(upstream)

    def send_on(self, upstream: "Upstream") -> None:
        """Send the request over a connection."""
        self.waiting = False
        self._upstream = upstream
        if self.cluster.timed:
            self.sent = perf_counter()
        upstream.send(self, self._request)
        if self._pending_body:
            pieces, self._pending_body = self._pending_body, []
            self.down.resume_if_paused()  # first: what is written now may pause it again
            for piece in pieces:
                self._write_body(piece)

    def _body_bytes(self, data: bytes) -> None:
        """The next bytes of the request's body, in the form in which they are sent."""
        replay = self._replay
        if replay is not None:
            self._replay_bytes += len(data)
            if self._replay_bytes > self.route.retry.replay_bytes:
                self._replay = None
            else:
                replay.append(data)
        if self._upstream is not None:
            self._write_body(data)
        else:
            self._pending_body.append(data)
            self.down.pause_reading()

    def _write_body(self, data: bytes) -> None:
        upstream = self._upstream
        if upstream is not None and not upstream.closed:
            upstream.transport.write(data)

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
        if self._race is not None:
            self._race.end()
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
        pause = -1.0
        if not sent:
            # Nothing was sent, so even a POST may go elsewhere; and whoever is there has not failed yet.
            elsewhere = len(self.cluster.endpoints) > 1
            if elsewhere or self._may_come_back(code):
                pause = 0.0 if elsewhere and self._tries == 1 else self.route.retry.pause(self._tries)
        elif self.is_repeatable():
            pause = self.route.retry.pause(self._tries)
        if pause >= 0 and condition in self.route.retry.conditions and self._may_repeat(pause):
            self._repeat(pause)
        else:
            self.fail(status, code, detail, retry_after=retry_after)

    def _may_come_back(self, code: str) -> bool:
        """Whether the only endpoint may be asked again: it is not ejected, and no certificate stands in the way."""
        endpoint = self.endpoint
        return endpoint is not None and endpoint.ejected_until <= self.plane.now and code != "upstream-tls-failed"

    def _end_attempt(self, *, failed: bool | None) -> None:
        """Leave nothing of the attempt behind; it failed, or did not, or was cancelled (`None`)."""
        self._stop_timer()
        if self.waiting:
            self.waiting = False
            self.cluster.stop_waiting(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()
        self._leave_endpoint()
        if self._permit:
            self._report(failed)

    def _drop_attempts(self) -> None:
        """End whatever is under way; what is to be thought of it is said at the end."""
        self._stop_timer()
        if self._race is not None:
            self._race.end()
        if self.waiting:
            self.waiting = False
            self.cluster.stop_waiting(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave_endpoint(self) -> None:
        if self._active and self.endpoint is not None:
            self.endpoint.in_flight -= 1
            self.cluster.finished += 1
            self._active = False

    def _tell_circuit(self) -> None:
        """Report the attempt to the cluster's circuit; what the caller broke off says nothing about the upstream."""
        breaker = self.cluster.breaker
        if breaker is not None and self._blame is None and self.status < 500:  # nearly always, and two calls shorter
            permit, self._permit = self._permit, 0
            breaker.succeed(permit, self.plane.now)
        elif self._blame is None:
            self._report(self.status >= 500)
        else:
            self._report(self._blame or None)

    def _report(self, failed: bool | None) -> None:
        breaker, permit = self.cluster.breaker, self._permit
        self._permit = 0
        if breaker is not None:
            breaker.report(permit, self.plane.now, failed=failed)

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
        if self._race is not None:
            self._race.end()
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
        if self._race is not None:
            self._race.end()
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
        if self._race is not None:
            self._race.end()
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
        self.cluster, self._home, self._tries, self._race = cluster, None, 0, None
        if self._replay is not None:
            self._pending_body = list(self._replay)
        self._dispatch(None)


def _asked_pause(head: ResponseHead) -> float:
    """Seconds that a response asks to be left alone for."""
    return max(
        (retry_after_s(field_value(part)) for part in head.parts[1:] if field_name(part) == b"retry-after"), default=0.0
    )

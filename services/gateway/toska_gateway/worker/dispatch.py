"""One attempt to have a request answered: its endpoint, its connection, its bytes, and who is told how it went.

What is done about those that come to nothing is for `attempts`.
"""

import asyncio
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.caller import Caller
from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.http1 import RequestHead

if TYPE_CHECKING:
    from toska_gateway.worker.downstream import Downstream
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.rival import Race
    from toska_gateway.worker.route import Route
    from toska_gateway.worker.spans import Trace
    from toska_gateway.worker.upstream import Upstream

_OVERLOADED_S: Final = 1
"""Retry-After of what a limit refused: nobody knows when there will be room, and it changes from moment to moment."""


class Dispatch(Caller):
    """The part of an exchange that makes its attempts.

    `Exchange` is what becomes of it in the end, and sets all attributes itself: one call less for each request.

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
    _race: "Race | None"
    _replay: list[bytes] | None
    _replay_bytes: int
    _request: bytes
    _timer: asyncio.TimerHandle | None
    _tries: int
    _upstream: "Upstream | None"

    def fail(self, status: int, code: str, detail: str, *, retry_after: int = 0, extra: bytes = b"") -> None:
        """Answer with a problem."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Have the attempt's own timers run: those of routes that ask for it."""
        raise NotImplementedError

    def connect_failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """The connection that was being made for this exchange came to nothing."""
        raise NotImplementedError

    # -- where it goes

    def _dispatch(self, tried: Endpoint | None) -> None:
        """Choose an endpoint, another than `tried` if there is one, and send or wait for a connection."""
        cluster = self.cluster
        if cluster.guarded:
            failover = cluster.failover
            if failover is not None and (self._home is None or self._home is tried):
                now = self.plane.now
                cluster = self.cluster = failover.choose(cluster, self.plane.clusters, self.key, now)
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

    @property
    def key(self) -> int:
        """What the cluster's balancer goes by, if it goes by a key."""
        key_of = self.cluster.key_of
        return 0 if key_of is None else key_of(self.head, self.down)

    @property
    def is_trying(self) -> bool:
        """Whether an attempt of its own is under way."""
        return self._active

    def whole_request(self) -> bytes:
        """The request as it is sent, with its body."""
        return self._request + b"".join(self._replay or ())

    # -- on its way

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

    # -- how it went

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
        self._end_race()
        if self.waiting:
            self.waiting = False
            self.cluster.stop_waiting(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def _end_race(self) -> None:
        """Cancel the attempt's rivals; nothing is left that would need the collector."""
        race, self._race = self._race, None
        if race is not None:
            race.end()

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

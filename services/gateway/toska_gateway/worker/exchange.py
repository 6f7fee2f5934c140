"""One request's life: from its head to the last byte of its response.

    routed -> past the route's gates -> attempts (see `attempts`) -> answering -> done

The downstream hands in the head and the body's payload; the upstream hands in the response. Whatever goes wrong before
the first byte of a response is answered as a problem document; after it, the client's connection is aborted, so that a
cut-off response can never be taken for a whole one.
"""

from asyncio import TimerHandle
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker import answers
from toska_gateway.worker.attempts import Attempts, is_upstreams_fault
from toska_gateway.worker.cluster import NOWHERE, Cluster
from toska_gateway.worker.downstream_response import complete_head
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.http1 import CHUNKED, CRLF, BadMessage, RequestHead, ResponseHead
from toska_gateway.worker.passage import Passage
from toska_gateway.worker.policies import BodyStage, Instead, Shaper
from toska_gateway.worker.rival import Race
from toska_gateway.worker.route import Route
from toska_gateway.worker.shaping import Shaping
from toska_gateway.worker.spans import Trace
from toska_gateway.worker.tunnel import Tunnel
from toska_gateway.worker.upstream_request import begin_trace, build_request

if TYPE_CHECKING:
    from toska_gateway.worker.downstream import Downstream
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.upstream import Upstream

LAST_CHUNK: Final = b"0\r\n\r\n"
_AWAY: Final = frozenset(
    {
        "bad-upstream-response", "circuit-open", "upstream-connect-failed", "upstream-overloaded", "upstream-reset",
        "upstream-timeout", "upstream-tls-failed", "upstream-unavailable",
    }
)  # fmt: skip
"""Codes for which a cache may have something to answer instead."""


class Exchange(Attempts):
    """A request and its response; owned by the client connection that it came on."""

    __slots__ = (
        "_done", "_endpoint_said", "close_after", "error", "passage", "received", "rechunk", "returned", "shaping",
        "started", "trace_id", "trace_lines", "tunnelled", "upstream_s",
    )  # fmt: skip

    def __init__(self, plane: "Plane", down: "Downstream", head: RequestHead, route: Route, cluster: Cluster) -> None:
        self.plane = plane
        self.down = down
        self.head = head
        self.route = route
        self.cluster = cluster
        self.started = self.sent = perf_counter()
        self.is_head = head.method == b"HEAD"
        self.upgrading = route.allow_websocket and head.upgrade == b"websocket"
        self.responding = False  # a byte of the final response has been written
        self.request_done = head.body_length == 0
        self.waiting = False
        self.tunnelled = False
        self._permit = 0  # of the cluster's circuit, for the attempt that is being made
        self._blame: bool | None = None  # whether it failed by the upstream's fault; None: its status tells
        self.added = b""  # field lines of our own for whatever is answered
        self.passage: Passage | None = None  # of a route with gates
        self.shaping: Shaping | None = None  # of a response that shapers look at
        self._done = False
        self.rechunk = False  # the response's body, whose length nobody knows
        self.received = 0  # bytes of the request's body
        self.returned = 0  # bytes of the response's
        self.status = 0
        self.error = ""  # the code of our own answer, or why the response broke off
        self._endpoint_said = 0  # the status of the upstream's response, whatever shapers make of it; 0: there is none
        self.upstream_s = 0.0  # from sending the last attempt to the head of its response
        self.trace_id = b""
        self.trace: Trace | None = None  # if it is sampled
        self.trace_lines = b""  # field lines that tell the next hop of it
        self.expires = plane.now + route.timeout if route.timeout else 0.0
        self._tries = 0
        self._home: Endpoint | None = None  # that the client's affinity cookie names
        self._active = False
        self.endpoint: Endpoint | None = None
        self._upstream: Upstream | None = None
        self.close_after = head.close  # the client's connection
        self._request = b""
        self._pending_body: list[bytes] = []  # came while no connection was there to take it
        # What has been sent of the body, while a second attempt is still thinkable; None: too late.
        self._replay: list[bytes] | None = [] if route.keeps_body else None
        self._replay_bytes = 0
        self._timer: TimerHandle | None = None  # of the attempt, or of the pause before the next
        self._race: Race | None = None  # with rivals of the attempt
        self.fallen = False  # to the route's fallback

    # -- past the route's gates

    def enter(self) -> None:
        """Pass the route's gates, and then start."""
        self.down.set_deadline(self.route.response_timeout)
        self.passage = Passage(self.route.gates)
        self.pass_on()

    def pass_on(self) -> None:
        """Pass the gates that are left: the one that was waited for lets the request go on."""
        passage = self.passage
        if passage is None or self.responding or not passage.go_on(self):
            return
        try:
            self._check_length()
            if passage.resizes:
                self.head.body_length = CHUNKED
            self.start()
        except BadMessage as error:  # here, and not where it was read: a gate may have let it wait
            self.fail(error.status, error.code, error.reason)
            return
        if passage.shadow is not None:
            passage.shadow.begin(self._request, self.head.body_length)
        if not self.responding:
            if self._upstream is not None:
                self.down.resume_if_paused()  # first: what is written now may pause it again
            passage.release(self)

    def _check_length(self) -> None:
        limit = self.route.max_body or self.plane.limits.body_bytes
        if limit and self.head.body_length > limit:
            raise BadMessage(413, "body-too-large", f"the body exceeds {limit} bytes")

    @property
    def claims(self) -> Mapping[str, Any] | None:
        """What the caller's token says, once a gate has verified it."""
        return None if self.passage is None else self.passage.claims

    # -- towards the upstream

    def start(self) -> None:
        """Build the request as it is forwarded, choose an endpoint, send."""
        if self.cluster is NOWHERE:
            self._answer_directly()
            return
        affinity = self.cluster.affinity
        if affinity is not None:
            self._home = affinity.find(self.head)  # before our cookies are taken out
        self._request = build_request(self)
        self._dispatch(None)

    def known_trace(self) -> bytes:
        """The id of its trace, also if it was answered before it was sent anywhere."""
        if not self.trace_id:
            begin_trace(self)
        return self.trace_id

    def request_id(self) -> bytes:
        """What the request is called in logs: the trace id, or what a trusted proxy says."""
        given = self.head.special.get(b"x-request-id")
        return given[0] if given is not None and self.down.forwarding.trusted else self.trace_id

    def body(self, payload: bytes) -> None:
        """The next payload bytes of the request's body."""
        passage = self.passage
        if passage is not None:
            try:
                payload = passage.take(self, payload)
            except Instead as instead:
                self.answer_instead(instead)
                return
            if not payload:
                return
        if self.head.body_length == CHUNKED:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        self._body_bytes(payload)

    def body_complete(self) -> None:
        """The request's body has been read to its end."""
        self.request_done = True
        passage = self.passage
        if passage is not None:
            if passage.holds or passage.ended:
                return
            try:
                rest = passage.end()
            except Instead as instead:
                self.answer_instead(instead)
                return
            if rest:
                self._body_bytes(b"%x\r\n%b\r\n" % (len(rest), rest))
        if self.head.body_length == CHUNKED:
            self._body_bytes(LAST_CHUNK)

    # -- attempts that fail

    def upstream_lost(self, upstream: "Upstream") -> None:
        """The connection broke before the response was complete."""
        if upstream is not self._upstream:
            return
        if self.tunnelled:
            self.end_tunnel()
        elif self.responding:
            self._upstream = None
            self.error = "cut-off"
            self._blame = True
            self.down.abort()
        else:
            self._lost_before_response(upstream)

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        """The upstream broke the protocol: its connection cannot be trusted with another request."""
        if self.responding:
            self._upstream = None
            self.error = "bad-upstream-response"
            upstream.close()
            self._blame = True
            self.down.abort()
        else:
            self._attempt_failed("malformed", 502, "bad-upstream-response", reason)

    def on_deadline(self) -> None:
        """The deadline that was last set has passed."""
        if self._upstream is not None and self.request_done:
            self._upstream.time_out()
        if self.responding:
            self.error = "upstream-timeout"
            self.down.abort()
        elif self.shaping is not None:  # nothing of the upstream's is missing, so nothing would be better another time
            self.fail(504, "policy-timeout", f"route {self.route.name} did not decide about the response in time")
        elif self.passage is not None and self.passage.holds:
            self.fail(504, "policy-timeout", f"route {self.route.name} did not decide about the request in time")
        elif not self.request_done and self._upstream is not None and not self.down.paused:
            self.fail(408, "request-timeout", "the request's body did not come in time")
        else:
            self._timed_out()

    def fail(self, status: int, code: str, detail: str, *, retry_after: int = 0, extra: bytes = b"") -> None:
        """Answer with a problem, and leave nothing of the attempt behind.

        Args:
            status: Of the answer.
            code: The problem's type; explained in `toska_gateway.problem_types`.
            detail: For the caller.
            retry_after: Seconds, if known.
            extra: Further field lines.
        """
        if code in _AWAY and self._is_stood_in_for(blame=is_upstreams_fault(status, code)):
            return
        if self.route.fallback is not None and self._turns_elsewhere(status, code):
            return
        self._drop_upstream()
        self.route.stats.failed(code)
        self.error = code
        self._blame = is_upstreams_fault(status, code)
        self.status = status
        self.responding = True
        close = self.close_after or not self.request_done
        extra += self.added
        if retry_after:
            extra += b"retry-after: %d\r\n" % retry_after
        self.returned = self.down.write_problem(
            status, code, detail, trace_id=self.known_trace(), close=close, bodiless=self.is_head, extra=extra
        )
        self._finish()
        self.down.exchange_done(close=close)

    def _is_stood_in_for(self, *, blame: bool) -> bool:
        """Whether the route's cache has answered in the place of an upstream, whose fault it may be."""
        passage = self.passage
        if passage is None or passage.cached is None:
            return False
        cached, passage.cached = passage.cached, None
        self._blame = blame
        stood_in_for = cached.stand_in(self)
        if not stood_in_for:
            self._blame = None
        return stood_in_for

    def answer(self, status: int, content_type: str, body: bytes, *, extra: bytes = b"") -> None:
        """Answer with something of our own that is no problem; `extra` is further field lines."""
        self._blame = False
        close = self.close_after or not self.request_done
        self._answer_with(
            status,
            answers.build(status, content_type, body, close=close, bodiless=self.is_head, extra=self.added + extra),
            close=close,
        )

    def _answer_directly(self) -> None:
        """The route says itself what is answered."""
        close = self.close_after or not self.request_done
        status, answer = self.route.answer_directly(self.head, self.down.forwarding, close=close, extra=self.added)
        self._answer_with(status, answer, close=close)

    def _answer_with(self, status: int, answer: bytes, *, close: bool) -> None:
        self._drop_upstream()
        self.status = status
        self.responding = True
        self.returned = answers.body_size(answer)
        self.down.transport.write(answer)
        self._finish()
        self.down.exchange_done(close=close)

    def serve(self, head: ResponseHead, body: bytes) -> None:
        """Answer with a whole response that was kept: it passes those shapers that come after the cache."""
        self._drop_upstream()
        if self._blame is None:
            self._blame = False
        if self.route.late_shapers:
            self._shape(head, body, self.route.late_shapers, last=True)
        else:
            self.write_head(head, body, last=True)
        if self.shaping is not None:
            self.shaping.complete(self)
        elif not self._done:
            self.end()

    def close_after_answer(self) -> None:
        """Say with the answer, unless it has begun, that the connection closes after it."""
        if not self.responding:
            self.close_after = True

    def client_gone(self) -> None:
        """The client closed its connection: nobody is left to answer."""
        self._drop_upstream()
        if self._blame is None:
            self._blame = False
        if not self.tunnelled:
            self.error = self.error or "client-gone"
        self.status = self.status or 499
        self._finish()

    def answer_instead(self, instead: Instead) -> None:
        """A stage or a shaper has refused: answer what it says, or break off what has begun."""
        if self.responding:
            self._drop_upstream()
            if self.shaping is not None:
                self.shaping.abort()
            self._blame = False
            self.down.abort()
        else:
            instead.answer(self)

    def _drop_upstream(self) -> None:
        if self.passage is not None:
            self.passage.cancel()
        self._drop_attempts()

    # -- the response

    def interim_response(self, head: ResponseHead) -> None:
        """A 1xx response: passed on to clients that know them (RFC 9110 §15.2)."""
        if self.head.http11 and (head.status != 100 or self.head.expect):
            self.down.transport.write(b"".join((*head.parts, CRLF)))

    def response_head(self, head: ResponseHead, body: bytes, *, last: bool) -> None:
        """Pass on the head of the final response, with the whole body if it is here already."""
        if self._upstream is not None:
            self.upstream_s = self._upstream.waited
        self._endpoint_said = head.status
        route = self.route
        if route.watched and not self._is_welcome(head):
            return
        if route.shapers:
            self._shape(head, body, route.shapers, last=last)
        else:
            self.write_head(head, body, last=last)

    def _shape(self, head: ResponseHead, body: bytes, shapers: Sequence[Shaper], *, last: bool) -> None:
        self._replay = None  # it stays, whatever the shapers put in its place ...
        if head.status >= 500:
            self._blame = True  # ... and so does this
        self.shaping = Shaping(head, body, shapers, last=last)
        self.shaping.go_on(self)

    def shape_on(self, stage: BodyStage | None = None) -> None:
        """Pass the shapers that are left: the one that was waited for has decided, and the body passes `stage`."""
        if self.shaping is not None:
            self.shaping.pass_through(stage)
            self.shaping.go_on(self)

    def write_head(self, head: ResponseHead, body: bytes, *, last: bool) -> None:
        """Write the head of a response, and what is there of its body."""
        self._replay = None
        self.responding = True
        self.status = head.status
        parts = head.parts
        edits = self.route.response_edits
        if edits is not None:
            edits.apply(parts, self)
        cluster = self.cluster
        if cluster.curious and self._endpoint_said:
            self._tell_cluster(head)
        if self.added:
            parts.append(self.added)
        complete_head(self, head)
        if body:
            self.returned = len(body)
            parts.append(body)
        if last:
            self.down.transport.write_soon(b"".join(parts))
        else:
            self.down.transport.write(b"".join(parts))
            self.down.set_deadline(self.route.idle_timeout)

    def _tell_cluster(self, head: ResponseHead) -> None:
        """Tell the cluster how long the answer took and what it was, and the client where to come back to."""
        endpoint, cluster = self.endpoint, self.cluster
        if endpoint is None:
            return
        if cluster.timed:
            endpoint.latency.observe(perf_counter() - self.sent, self.plane.now)
        if cluster.outliers.by_answers:
            self.plane.note(endpoint, self._endpoint_said)
        if cluster.affinity is not None and endpoint is not self._home:
            head.parts += cluster.affinity.cookie_for(endpoint)

    def response_data(self, payload: bytes) -> None:
        """Pass on payload bytes of the response."""
        self.down.set_deadline(self.route.idle_timeout)
        if self.shaping is None:
            self.write_data(payload)
        else:
            self.shaping.take(self, payload)

    def write_data(self, payload: bytes) -> None:
        """Write payload bytes of a response's body."""
        if not payload:
            return
        self.returned += len(payload)
        if self.rechunk:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        self.down.transport.write(payload)

    def response_complete(self, upstream: "Upstream", *, reusable: bool) -> None:
        """The response has come to its end: free the connection, count, and turn to the next request."""
        if upstream is not self._upstream:
            return  # something else was answered
        self._upstream = None
        if reusable and self.request_done:
            if self.down.blocked or self.shaping is not None:
                upstream.transport.resume_reading()
            upstream.release()
        else:
            upstream.close()
        if self.shaping is None:
            self.end()
        else:
            self.shaping.complete(self)

    def end(self) -> None:
        """The whole response has been written."""
        if self.rechunk:
            self.down.transport.write(LAST_CHUNK)
        self._finish()
        self.down.exchange_done(close=self.close_after)

    def _finish(self) -> None:
        if self._active:
            self._leave_endpoint()
        if self._permit:
            self._tell_circuit()
        self._done = True
        if self.shaping is not None:
            self.shaping.abort()
            self.shaping = None
        passage = self.passage
        if passage is not None:
            passage.cancel()
            if passage.watch is not None:
                saved = "fallback" if self.fallen else "retried" if self._tries > 1 else ""
                passage.watch.count(self, passage, saved=saved, blamed=self._blame is True)
        self._record()

    def _record(self) -> None:
        ended = perf_counter()
        self.route.stats.record(self.status, ended - self.started, self.received, self.returned)
        log = self.plane.access_log
        if log is not None:
            log.tell(self, self.endpoint, self._tries, ended)
        if self.trace is not None and self.plane.tracer is not None:
            self.plane.tracer.finish(self, self.trace, ended)

    # -- flow control, both ways

    def pause_downstream(self) -> None:
        """The upstream takes no more for now: stop reading the request's body."""
        self.down.pause_reading()

    def resume_downstream(self) -> None:
        """The upstream takes bytes again."""
        self.down.resume_if_paused()

    def pause_upstream(self) -> None:
        """The client takes no more for now: stop reading the response."""
        if self._upstream is not None and not self._upstream.closed:
            self._upstream.transport.pause_reading()

    def resume_upstream(self) -> None:
        """The client takes bytes again."""
        if self.shaping is not None and self.shaping.busy:
            return
        if self._upstream is not None and not self._upstream.closed:
            self._upstream.transport.resume_reading()

    # -- tunnels

    def start_tunnel(self, upstream: "Upstream", head: ResponseHead, rest: bytes) -> None:
        """The upstream agreed to switch protocols: from here on bytes pass as they come (RFC 9110 §7.8)."""
        self._stop_timer()
        self.status = head.status
        self.responding = True
        self.tunnelled = True
        self.upstream_s = upstream.waited
        self.expires = 0.0  # the timeout is the request's, and a tunnel may last
        self._replay = None
        if self._permit:
            self._tell_circuit()
        head.parts.append(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
        head.parts.append(rest)
        self.down.transport.write(b"".join(head.parts))
        Tunnel(self, upstream).open()

    def end_tunnel(self) -> None:
        """One side of the tunnel has gone, or both have said all they will."""
        self._upstream = None
        self._finish()
        self.down.exchange_done(close=True)

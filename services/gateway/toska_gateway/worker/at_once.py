"""What a client connection answers by itself: a redirect, what a cache holds, a refusal. No exchange is made for it."""

from typing import TYPE_CHECKING, Final

from toska_gateway.worker import answers
from toska_gateway.worker.client_connection import ClientConnection
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import ASTERISK, BadMessage, RequestHead
from toska_gateway.worker.rate_limit import REFUSED
from toska_gateway.worker.tracing import new_trace_ids

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.route import Route

NO_ROUTE: Final = "(none)"
"""What requests are counted under that are no route's."""


class AnswersAtOnce(ClientConnection):
    """The part of a client connection that answers what needs nobody else.

    Attributes:
        forwarding: What is told about the client.
        log_part: Who it is in the access log, once there has been a line.
    """

    __slots__ = ("forwarding", "log_part")

    forwarding: Forwarding  # from `connection_made` on

    def __init__(self, plane: "Plane", peer: str) -> None:
        super().__init__(plane, peer)
        self.log_part = b""

    def _answer_directly(self, head: RequestHead, route: "Route") -> None:
        """The route says itself what is answered."""
        close = head.close or head.body_length != 0
        status, answer = route.answer_directly(head, self.forwarding, close=close)
        self.transport.write(answer)
        self._tell(head, route, status, size=answers.body_size(answer))
        self._after_answer(close=close)

    def _is_hit(self, head: RequestHead, route: "Route") -> bool:
        """Whether the route's cache has had the answer at once."""
        hit = route.hits.find_at_once(head, self.forwarding) if route.hits is not None else None
        if hit is None:
            return False
        close, via = head.close, self.plane.via.of_http11
        ending = via.close if close else via.persistent if head.http11 else via.keep_alive
        # One write: of a body that is short a copy is cheaper than a second buffer.
        self.transport.write_soon(hit.head + ending + hit.body)
        self._tell(head, route, hit.status, size=len(hit.body))
        self._after_answer(close=close)
        return True

    def _refuse_for_now(self, head: RequestHead, route: "Route", extra: bytes) -> None:
        close = head.close or head.body_length != 0
        self.plane.stats.rate_limited += 1
        self._refuse_with(head, route, BadMessage(429, "rate-limited", REFUSED), close=close, extra=extra)
        self._after_answer(close=close)

    def _no_route(self, head: RequestHead) -> None:
        close = head.close or head.body_length != 0
        allowed = self.plane.table.allowed_methods(head, self.forwarding)
        if head.path == ASTERISK:
            self.transport.write(answers.about_the_server(close=close))
            self._tell(head, None, 204)
            self._after_answer(close=close)
            return
        if allowed:
            extra = b"allow: " + b", ".join(allowed) + b"\r\n"
            error = BadMessage(405, "method-not-allowed", "this path takes other methods")
            self._refuse_with(head, None, error, close=close, extra=extra)
        else:
            error = BadMessage(404, "no-route", "no route matches this request")
            self._refuse_with(head, None, error, close=close)
        self._after_answer(close=close)

    def write_problem(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        trace_id: bytes,
        close: bool,
        bodiless: bool = False,
        extra: bytes = b"",
    ) -> int:
        """Write one of the gateway's own answers; returns how long its body is."""
        answer = answers.problem(
            status, code, detail, trace_id=trace_id.decode(), close=close, bodiless=bodiless, extra=extra
        )
        self.transport.write(answer)
        return answers.body_size(answer)

    def _refuse_with(
        self,
        head: RequestHead | None,
        route: "Route | None",
        error: BadMessage,
        *,
        close: bool,
        bodiless: bool = False,
        extra: bytes = b"",
    ) -> None:
        status, code = error.status, error.code
        if head is not None:
            bodiless = head.method == b"HEAD"
        trace_id = new_trace_ids()[:32]
        size = self.write_problem(
            status, code, error.reason, trace_id=trace_id, close=close, bodiless=bodiless, extra=extra
        )
        (self.plane.stats.route(NO_ROUTE) if route is None else route.stats).failed(code)
        self._tell(head, route, status, size=size, error=code, trace_id=trace_id)

    def _tell(
        self,
        head: RequestHead | None,
        route: "Route | None",
        status: int,
        *,
        size: int = 0,
        error: str = "",
        trace_id: bytes = b"",
        name: str = NO_ROUTE,
    ) -> None:
        """Record an answer that no exchange has given; `name` is what it is counted under if it is no route's."""
        stats = self.plane.stats.route(name) if route is None else route.stats
        stats.record(status, 0.0, 0, size)
        log = self.plane.access_log
        if log is not None:
            log.tell_answer(self, head, route or name, status, error, size, trace_id or new_trace_ids()[:32])

    def _after_answer(self, *, close: bool) -> None:
        if close or (self.eof and not self._buffer):
            self.close_gently()
        else:
            self.deadline = self.plane.now + self.plane.limits.idle_timeout

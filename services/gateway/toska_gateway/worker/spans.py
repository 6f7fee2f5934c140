"""Spans of sampled requests: one of the request, and one of each attempt, by OpenTelemetry's conventions for HTTP.

A request that is not sampled pays one look for it. What a sampled one leaves is plain data, which the parent makes OTLP
of and sends (`toska_gateway.span_exporter`): encoding, TLS, retries and a collector's credentials are nothing that a
process should spend the time of requests on, and one connection a gateway is enough for a collector.
Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from collections.abc import Callable
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from toska_common.clock import now_utc

from toska_gateway.worker.access_log import mask_tokens
from toska_gateway.worker.http1 import CRLF, RequestHead, encode_path
from toska_gateway.worker.tracing import SAMPLED, Parent, new_span_id, read_parent, traceparent

if TYPE_CHECKING:
    from toska_gateway.worker.endpoint import Endpoint
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.route import Route

MAX_WAITING: Final = 2048
"""Requests' spans that may wait to be handed over; what comes beyond is dropped."""
_MAX_TEXT: Final = 1024
_BATCH: Final = 128

Send = Callable[[list[dict[str, Any]]], bool]
"""Hands spans to the parent; false if it has not taken those before, and takes none now."""


class Call:
    """One attempt: a request sent to an endpoint, or a connection that could not be made for it.

    Attributes:
        status: Of the response; 0: there was none.
        error: Why there was none, or why it broke off.
        ended: By `perf_counter`; 0: not yet.
    """

    __slots__ = ("address", "cluster", "ended", "error", "port", "span_id", "started", "status")

    def __init__(self, endpoint: "Endpoint", span_id: bytes, started: float) -> None:
        self.cluster = endpoint.cluster.name
        self.address = endpoint.address
        self.port = endpoint.port
        self.span_id = span_id
        self.started = started
        self.ended = 0.0
        self.status = 0
        self.error = ""

    def fail(self, reason: str) -> None:
        """It came to nothing, now."""
        self.error = reason
        self.ended = perf_counter()


class Trace:
    """The spans of one sampled request.

    Attributes:
        span_id: Of the request itself.
        next_id: Of the attempt that the forwarded request names as its parent.
    """

    __slots__ = ("calls", "next_id", "parent", "span_id")

    def __init__(self, parent: Parent | None, first_call: bytes) -> None:
        self.parent = parent
        self.span_id = new_span_id()
        self.next_id = first_call
        self.calls: list[Call] = []

    def begin_call(self, endpoint: "Endpoint", request: bytes) -> tuple[Call, bytes]:
        """An attempt is being sent; returns its span, and the request with the span's id in its traceparent."""
        span_id = self.next_id
        if any(call.span_id == span_id for call in self.calls):
            span_id = new_span_id()
            request = request.replace(b"-" + self.next_id + b"-", b"-" + span_id + b"-", 1)
        call = Call(endpoint, span_id, perf_counter())
        self.calls.append(call)
        return call, request

    def connect_failed(self, endpoint: "Endpoint", reason: str, began: float) -> None:
        """A connection for an attempt could not be made."""
        call = Call(endpoint, new_span_id(), began)
        call.fail("connect_" + reason)
        self.calls.append(call)


class Tracer:
    """Decides which requests are sampled, and gathers what they leave.

    Args:
        settings: `server.tracing` as plain data; of it only `sample`.
        send: Takes batches.

    Attributes:
        share: Of the traces that begin here, those that are sampled.
    """

    def __init__(self, settings: dict[str, Any], send: Send) -> None:
        self.settings = settings
        self.share: float = settings["sample"]
        self._send = send
        self._waiting: list[dict[str, Any]] = []
        self._dropped = 0

    def samples(self, parent: Parent | None, *, trusted: bool) -> bool:
        """Whether a request is sampled: as the caller has decided, if it is one whose word counts."""
        if parent is not None and trusted:
            return bool(parent.flags & SAMPLED)
        return random() < self.share  # noqa: S311 - a sample, no secret

    def finish(self, exchange: "Exchange", trace: Trace, ended: float) -> None:
        """A sampled request has come to its end."""
        exchange.route.stats.illustrate(exchange.trace_id.decode(), ended - exchange.started, now_utc().timestamp())
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(_describe(exchange, trace, ended))

    def flush(self) -> int:
        """Hand over what there is; returns how many requests' spans were dropped since the last time."""
        while self._waiting and self._send(self._waiting[:_BATCH]):
            del self._waiting[:_BATCH]
        dropped, self._dropped = self._dropped, 0
        return dropped


def carry_on(exchange: "Exchange", ids: bytes, *, chosen: bool = False) -> bytes:
    """Go on with the caller's trace or begin one, and decide about sampling; returns the field lines for the next hop.

    Args:
        exchange: Whose `trace_id`, and `trace` if it is sampled, are set.
        ids: New ones, for what is missing.
        chosen: That it is sampled has been decided.
    """
    tracer = exchange.plane.tracer
    parent = read_parent(exchange.head.special)
    flags = parent.flags if parent is not None else 0
    exchange.trace_id = trace_id = parent.trace_id if parent is not None else ids[:32]
    if tracer is not None:
        sampled = chosen or tracer.samples(parent, trusted=exchange.down.forwarding.trusted)
        flags = flags & ~SAMPLED | sampled
        if sampled:
            exchange.trace = Trace(parent, ids[32:])
    lines = b"traceparent: " + traceparent(trace_id, ids[32:], flags) + CRLF
    if parent is not None and parent.state:
        lines += b"tracestate: " + parent.state + CRLF
    return lines


def _describe(exchange: "Exchange", trace: Trace, ended: float) -> dict[str, Any]:
    head, down, route = exchange.head, exchange.down, exchange.route
    offset = now_utc().timestamp() - perf_counter()
    parent = trace.parent
    return {
        "trace_id": exchange.trace_id.decode(),
        "span_id": trace.span_id.decode(),
        "parent_id": parent.span_id.decode() if parent is not None else "",
        "state": parent.state.decode("latin-1") if parent is not None else "",
        "started": exchange.started + offset,
        "ended": ended + offset,
        "method": head.method.decode(),
        "path": _text(encode_path(head.path)),
        "scheme": down.forwarding.scheme.decode(),
        "host": _text(head.host),
        "client": _text(down.forwarding.client(head)),
        "agent": _agent(head),
        "version": "1.1" if head.http11 else "1.0",
        "route": route.name,
        "pattern": _pattern(route),
        "status": exchange.status,
        "error": exchange.error,
        "received": exchange.received,
        "returned": exchange.returned,
        "calls": [
            {
                "span_id": call.span_id.decode(),
                "cluster": call.cluster,
                "address": call.address,
                "port": call.port,
                "started": call.started + offset,
                "ended": (call.ended or ended) + offset,
                "status": call.status,
                "error": call.error,
            }
            for call in trace.calls
        ],
    }


def _agent(head: RequestHead) -> str:
    value = head.field(b"user-agent")
    return "" if value is None else _text(value)


def _pattern(route: "Route") -> str:
    """What a route matches, as the name of all that it takes."""
    if route.path is not None:
        return route.path.decode()
    if route.path_regex is not None:
        return route.name
    return route.prefix.decode().rstrip("/") + "/*"


def _text(value: bytes) -> str:
    return mask_tokens(value)[:_MAX_TEXT].decode("utf-8", "replace")

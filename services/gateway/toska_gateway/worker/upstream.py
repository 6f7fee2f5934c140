"""One connection to an endpoint: sends a request's bytes, frames the response, goes back to the pool."""

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, cast

from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.http1 import (
    CHUNKED,
    MAX_RESPONSE_HEAD,
    BadMessage,
    ChunkedDecoder,
    ResponseHead,
    read_response,
)
from toska_gateway.worker.outbox import Outlet

if TYPE_CHECKING:
    from toska_gateway.worker.caller import Caller
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.spans import Call
    from toska_gateway.worker.tunnel import Tunnel

_SWITCHING_PROTOCOLS = 101
_MAX_INTERIM = 100
"""Interim responses in one read, far more than anybody has use for."""


class Upstream(asyncio.Protocol):
    """A client connection of ours. Between requests (`exchange` is None) it must stay silent, else it is closed."""

    __slots__ = (
        "_buffer", "_decoder", "_in_body", "_keep", "_left", "_sent", "call", "closed", "endpoint", "eof", "error",
        "exchange", "idle_since", "plane", "transport", "tunnel", "waited",
    )  # fmt: skip

    transport: Outlet  # from `connection_made` on

    def __init__(self, plane: "Plane", endpoint: Endpoint) -> None:
        self.plane = plane
        self.endpoint = endpoint
        self.exchange: Caller | None = None
        self.closed = False
        self.error: Exception | None = None  # what ended it, if it was not its end
        self.eof = False  # the upstream has said all it will
        self.tunnel: Tunnel | None = None  # what it speaks to, once the protocol has been switched
        self.idle_since = 0.0
        self._buffer = bytearray()
        self._in_body = False
        self._left: int | None = 0  # bytes of the body to come; None: until the upstream closes
        self._decoder: ChunkedDecoder | None = None
        self._keep = False
        self._sent = 0.0
        self.waited = 0.0  # from sending a request to the head of its response; below 0: nobody waits any more
        self.call: Call | None = None  # the span of the request that was sent last, if it is sampled

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = Outlet(cast("asyncio.Transport", transport), self.plane.outbox)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._leave_pool()
            self.close()  # an answer nobody asked for: whatever came next would be taken for the next answer
        elif self.transport.held:
            self._failed("reset")
            self.close()  # the same, only that somebody was just about to ask
            exchange.upstream_lost(self)
        elif self.tunnel is not None:
            self.tunnel.from_upstream(data)
        elif self._in_body:
            self._read_body(exchange, data)
        else:
            self._read_head(exchange, data)

    def eof_received(self) -> bool:
        self.eof = True
        exchange = self.exchange
        if self.tunnel is not None and exchange is not None:
            self.tunnel.upstream_ended()
            return True
        if exchange is None:
            self._leave_pool()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        tunnel, self.tunnel = self.tunnel, None
        self.transport.held = b""
        self.error = exc
        cluster = self.endpoint.cluster
        cluster.connections -= 1
        if cluster.pending:
            self.plane.connection_freed(cluster)
        exchange = self.exchange
        if exchange is None:
            self._leave_pool()
            return
        self.exchange = None
        if self._in_body and self._left is None and exc is None:
            exchange.response_complete(self, reusable=False)
        else:
            if tunnel is None:
                self._failed("cut_off" if self._in_body else "reset")
            exchange.upstream_lost(self)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_downstream()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume_downstream()

    # -- the exchange's side

    def send(self, exchange: "Caller", data: bytes) -> None:
        """Begin an exchange with its first bytes."""
        self.exchange = exchange
        self._in_body = False
        self._sent = perf_counter()
        self.waited = 0.0
        self.endpoint.stats.attempts += 1
        trace = exchange.trace
        if trace is None:
            self.call = None
        else:
            self.call, data = trace.begin_call(self.endpoint, data)
        self.transport.write_soon(data)

    def release(self) -> None:
        """Give the connection back: to a request that waits for one, else to the pool."""
        endpoint = self.endpoint
        self.exchange = None
        if self.closed:
            return
        if endpoint.removed or self.plane.draining:
            self.close()
            return
        pending = endpoint.cluster.pending
        while pending:
            waiting = pending.popleft()
            if waiting.waiting:
                waiting.take(self)
                return
        self.idle_since = self.plane.now
        endpoint.idle.append(self)

    def close(self) -> None:
        """Close, telling nobody."""
        if self.exchange is not None and not self.waited:
            self._failed("abandoned")
        self.exchange = None
        if not self.closed:
            self.transport.abort()

    def close_gently(self) -> None:
        """Close once everything is written, telling nobody."""
        self.exchange = None
        if not self.closed:
            self.transport.close()

    def time_out(self) -> None:
        """What was asked has not been answered in time; whoever asked closes the connection."""
        if not self.waited:
            self._failed("timeout")

    def _answered(self, status: int) -> None:
        self.waited = seconds = perf_counter() - self._sent
        self.endpoint.stats.answered(status, seconds)
        if self.call is not None:
            self.call.status = status

    def _failed(self, reason: str) -> None:
        self.waited = self.waited or -1.0
        self.endpoint.stats.failed(reason)
        if self.call is not None:
            self.call.fail(reason)

    def _misbehaved(self, exchange: "Caller", reason: str) -> None:
        self._failed("protocol")
        exchange.upstream_misbehaved(self, reason)

    def _leave_pool(self) -> None:
        # At once, and not when it is closed: until then somebody would take it.
        if self in self.endpoint.idle:
            self.endpoint.idle.remove(self)

    # -- framing of responses

    def _read_head(self, exchange: "Caller", data: bytes) -> None:
        if self._buffer:
            whole = self._extended_head(exchange, data)
            if whole is None:
                return
            data = whole
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            self._buffer += data
            self._check_unfinished(exchange)
            return
        size = len(data)
        try:
            head = read_response(data if end == size else data[:end], bodiless=exchange.is_head)
            if head.status < 200:
                self._interim(exchange, head, data[end:])
                return
            self._answered(head.status)
            left = self._left = head.body_length
            self._keep = not head.close and left is not None
            self._in_body = True
            if left == size - end:
                # The whole response in one read, or none to come: one write, and the connection is free.
                exchange.response_head(head, data[end:] if left else b"", last=True)
                taker = self.exchange  # another one if it is withheld, or was a rival's; none if nobody wants it
                if taker is not None:
                    taker.response_complete(self, reusable=self._keep)
                return
            self._decoder = ChunkedDecoder() if left == CHUNKED else None
            exchange.response_head(head, b"", last=False)
        except BadMessage as error:
            self._misbehaved(exchange, error.reason)
            return
        taker = self.exchange
        if end < size and taker is not None:
            self._read_body(taker, data[end:])

    def _extended_head(self, exchange: "Caller", data: bytes) -> bytes | None:
        """A head that came in parts, once it is whole; a part may be a byte, so only what is new is looked at."""
        buffer = self._buffer
        searched = max(0, len(buffer) - 3)
        buffer += data
        if buffer.find(b"\r\n\r\n", searched) < 0:
            self._check_unfinished(exchange)
            return None
        self._buffer = bytearray()
        return bytes(buffer)

    def _check_unfinished(self, exchange: "Caller") -> None:
        if len(self._buffer) > MAX_RESPONSE_HEAD:
            self._misbehaved(exchange, "the upstream's response head is too large")

    def _interim(self, exchange: "Caller", head: ResponseHead, rest: bytes) -> None:
        for _ in range(_MAX_INTERIM):
            if head.status == _SWITCHING_PROTOCOLS:
                if not exchange.upgrading or head.special.get(b"upgrade", (b"",))[0].lower() != b"websocket":
                    raise BadMessage(502, "bad-upstream-response", "the upstream switched protocols unasked")
                self._answered(head.status)
                exchange.start_tunnel(self, head, rest)
                return
            exchange.interim_response(head)
            if not rest or self.exchange is not exchange:
                return
            end = rest.find(b"\r\n\r\n") + 4
            if end == 3 or rest[:10] != b"HTTP/1.1 1":
                self._read_head(exchange, rest)
                return
            head, rest = read_response(rest[:end], bodiless=True), rest[end:]
        raise BadMessage(502, "bad-upstream-response", "the upstream sends interim responses without end")

    def _read_body(self, exchange: "Caller", data: bytes) -> None:
        decoder = self._decoder
        if decoder is not None:
            try:
                payload = decoder.feed(data)
            except BadMessage as error:
                self._misbehaved(exchange, error.reason)
                return
            if payload:
                exchange.response_data(payload)
            if decoder.rest is not None and self.exchange is exchange:
                self._decoder = None
                exchange.response_complete(self, reusable=self._keep and not decoder.rest)
            return
        left = self._left
        if left is None:
            exchange.response_data(data)
            return
        if len(data) > left:  # more than was announced: what follows belongs to nobody
            data = data[:left]
            self._keep = False
        self._left = left = left - len(data)
        exchange.response_data(data)
        if left == 0 and self.exchange is exchange:
            exchange.response_complete(self, reusable=self._keep)

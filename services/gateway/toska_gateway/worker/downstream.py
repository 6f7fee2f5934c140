"""One client connection: reads requests one at a time, within limits, and hands each to an `Exchange`.

    idle -> reading a head -> exchange (body in, response out) -> idle ...      or closed at any point

Bytes of a pipelined request wait in the buffer until the response before it is written; reading pauses when they grow.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from toska_gateway.worker.at_once import AnswersAtOnce
from toska_gateway.worker.client_connection import UNIX_PEER, peer_address
from toska_gateway.worker.cluster import NOWHERE
from toska_gateway.worker.exchange import Exchange
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import CHUNKED, BadMessage, ChunkedDecoder, RequestHead, read_request
from toska_gateway.worker.outbox import Outlet

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.route import Route
    from toska_gateway.worker.tunnel import Tunnel

_CR: Final = 0x0D


class Downstream(AnswersAtOnce):
    """A server connection of ours."""

    __slots__ = (
        "_blank", "_body_left", "_decoder", "_exchange", "_reading_head", "_scheme", "_tunnel",
    )  # fmt: skip

    def __init__(self, plane: "Plane", peer: str = "", scheme: bytes = b"http") -> None:
        super().__init__(plane, peer)
        self._scheme = scheme
        self._reading_head = False
        self._blank = False  # an empty line has come before the request that is being read
        self._exchange: Exchange | None = None
        self._body_left = 0  # bytes of the request's body still to come; with a decoder, any number
        self._decoder: ChunkedDecoder | None = None
        self._tunnel: Tunnel | None = None  # what it speaks to, once the protocol has been switched

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plane = self.plane
        self.transport = Outlet(cast("asyncio.Transport", transport), plane.outbox)
        self.peer = self.peer or peer_address(transport)
        self.forwarding = Forwarding(plane, self.peer, self._scheme)
        plane.downstreams[self] = None
        mine = plane.per_client[self.peer] = plane.per_client.get(self.peer, 0) + 1
        limits = plane.limits
        too_many = mine > limits.connections_per_client and self.peer != UNIX_PEER
        if too_many or len(plane.downstreams) > limits.connections:
            plane.stats.refused += 1
            self._refuse(BadMessage(503, "too-many-connections", "this gateway has all the connections it may have"))
            return
        plane.stats.accepted += 1
        self.deadline = plane.now + limits.header_timeout

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            if self._closing:
                return  # lingering: what still comes is read and thrown away
            if self._buffer:
                self._extend_head(data)
            else:
                self._read_heads(data)
        elif self._tunnel is not None:
            self._tunnel.from_client(data)
        elif not exchange.request_done:
            self._read_body(exchange, data)
        else:
            self._buffer += data
            if self.overflows:
                self.pause_reading()

    def eof_received(self) -> bool:
        self.eof = True
        self.transport.flush()  # what the loop closes next takes nothing more
        exchange = self._exchange
        if exchange is None:
            return False
        if self._tunnel is not None:
            self._tunnel.client_ended()
        elif not exchange.request_done:
            self.abort()  # a body that was cut off is no request
            return False
        return True  # half-closed: the answer is still wanted

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.held = b""
        plane = self.plane
        del plane.downstreams[self]
        left = plane.per_client[self.peer] - 1
        if left:
            plane.per_client[self.peer] = left
        else:
            del plane.per_client[self.peer]
        self._closing = True
        self._tunnel = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self.blocked = True
        if self._exchange is not None:
            self._exchange.pause_upstream()
        else:
            self.pause_reading()  # the answer that has just been given has not been taken

    def resume_writing(self) -> None:
        self.blocked = False
        if self._exchange is not None:
            self._exchange.resume_upstream()
        elif not self._closing:
            self._go_on()

    # -- reading requests

    def _extend_head(self, data: bytes) -> None:
        buffer = self._buffer
        searched = max(0, len(buffer) - 3)
        buffer += data
        if buffer.find(b"\r\n\r\n", searched) < 0:
            self._check_unfinished(buffer, searched)
            return
        whole = bytes(buffer)
        self._buffer = bytearray()
        self._read_heads(whole)

    def _read_heads(self, data: bytes) -> None:
        """Serve the requests in `data`, until one has to wait for its answer or for more bytes."""
        limits = self.plane.limits
        while data:
            if data[0] == _CR and data[:2] == b"\r\n":
                data = self._skip_empty_line(data)
                continue
            end = data.find(b"\r\n\r\n") + 4
            if end == 3:
                self._await_rest(data)
                return
            self._reading_head = self._blank = False
            head = None
            try:
                if end > limits.header_bytes:
                    raise self._too_large()
                if end == len(data):
                    head, rest = read_request(data, limits.headers, limits.target_bytes), b""
                else:
                    head, rest = read_request(data[:end], limits.headers, limits.target_bytes), data[end:]
                self._begin(head)
            except BadMessage as error:
                self._refuse(error, head, bodiless=data[:5] == b"HEAD ")
                return
            exchange = self._exchange
            if exchange is not None:
                if rest and exchange.request_done:
                    self._buffer += rest
                elif rest:
                    self._read_body(exchange, rest)
                return
            if self._closing:
                return
            if self.blocked:
                self._buffer += rest
                self.pause_reading()
                return
            data = rest  # for it was answered at once

    def _skip_empty_line(self, data: bytes) -> bytes:
        """RFC 9112 §2.2: an empty line before a request is ignored, and one is enough, however they arrive."""
        if self._blank:
            self._refuse(BadMessage(400, "bad-request-line", "a request begins with its request line"))
            return b""
        self._blank = True
        return data[2:]

    def _await_rest(self, data: bytes) -> None:
        """A head has begun, and has to be whole in time."""
        self._buffer += data
        if not self._reading_head:
            self._reading_head = True
            self.deadline = self.plane.now + self.plane.limits.header_timeout
        self._check_unfinished(self._buffer, 0)

    def _check_unfinished(self, buffer: bytearray, checked: int) -> None:
        """Refuse early what cannot become a head; what comes before `checked` has been looked at already."""
        try:
            if buffer.count(b"\n", checked) != buffer.count(b"\r\n", max(0, checked - 1)):
                raise BadMessage(400, "bad-request", "lines end with CRLF")
            if len(buffer) > self.plane.limits.header_bytes:
                raise self._too_large()
            if b"\r\n" not in buffer and len(buffer) > self.plane.limits.target_bytes + 64:
                raise BadMessage(414, "target-too-long", f"the target exceeds {self.plane.limits.target_bytes} bytes")
        except BadMessage as error:
            self._refuse(error)

    def _too_large(self) -> BadMessage:
        limit = self.plane.limits.header_bytes
        return BadMessage(431, "header-too-large", f"the request's head exceeds {limit} bytes")

    def _begin(self, head: RequestHead) -> None:
        plane = self.plane
        head.close = head.close or plane.draining
        route = plane.table.find(head, self.forwarding)
        if head.escaped:
            plane.table.require_kept_slashes(head, self.forwarding, route)
        if route is None:
            self._no_route(head)
            return
        quota = b""
        if route.rate_limit is not None:
            slack = route.rate_limit.take(head, self.forwarding)
            if slack < 0:
                self._refuse_for_now(head, route, route.rate_limit.refusal(slack))
                return
            quota = route.rate_limit.lines(slack)
        if not route.clusters and not route.gates:
            self._answer_directly(head, route)
        elif route.hits is None or not self._is_hit(head, route):
            self._open_exchange(head, route, quota)

    def _open_exchange(self, head: RequestHead, route: "Route", quota: bytes) -> None:
        plane = self.plane
        limit = route.max_body or plane.limits.body_bytes
        if limit and head.body_length > limit and not route.gates:  # else once these have said what comes with answers
            raise BadMessage(413, "body-too-large", f"the body exceeds {limit} bytes")
        if route.clusters:
            split = route.split
            name = route.clusters[0] if split is None else split.choose(head, self.forwarding)
            cluster = plane.clusters.get(name)
            if cluster is None:
                raise BadMessage(503, "upstream-unavailable", f"cluster {name} is not known yet")
        else:
            cluster = NOWHERE
        exchange = self._exchange = Exchange(plane, self, head, route, cluster)
        exchange.added = quota
        if head.body_length == CHUNKED:
            self._decoder = ChunkedDecoder()
        else:
            self._body_left = head.body_length
        if route.gates:
            exchange.enter()
        else:
            exchange.start()
        if head.body_length and not head.expect and self._exchange is exchange:
            self.set_deadline(plane.limits.body_timeout)

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        limits = self.plane.limits
        self.set_deadline(limits.body_timeout)
        decoder = self._decoder
        try:
            if decoder is not None:
                payload = decoder.feed(data)
                exchange.received += len(payload)
                limit = exchange.route.max_body or limits.body_bytes
                if limit and exchange.received > limit:
                    raise BadMessage(413, "body-too-large", f"the body exceeds {limit} bytes")
                if payload:
                    exchange.body(payload)
                if decoder.rest is None:
                    return
                rest, self._decoder = decoder.rest, None
            else:
                left = self._body_left
                exchange.received += min(len(data), left)
                if len(data) < left:
                    self._body_left = left - len(data)
                    exchange.body(data)
                    return
                exchange.body(data if len(data) == left else data[:left])
                rest = data[left:]
        except BadMessage as error:
            self._body_failed(exchange, error)
            return
        if self._exchange is exchange:
            exchange.body_complete()
            self.set_deadline(exchange.route.response_timeout)
        if rest and not self._closing:
            self._buffer += rest

    def _body_failed(self, exchange: Exchange, error: BadMessage) -> None:
        self.plane.stats.bad_requests += 1
        if exchange.responding:
            self.abort()
        else:
            exchange.fail(error.status, error.code, error.reason)

    # -- answering

    def _refuse(self, error: BadMessage, head: RequestHead | None = None, *, bodiless: bool = False) -> None:
        """Answer what is no proper request, and close: where the next one would begin cannot be known."""
        self.plane.stats.bad_requests += 1
        self._exchange = None
        self._refuse_with(head, None, error, close=True, bodiless=bodiless)
        self._after_answer(close=True)

    def exchange_done(self, *, close: bool) -> None:
        """The exchange's last byte is written; the next request may already be here."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.request_done:
            self._decoder = None
        self._after_answer(close=close)
        if self.blocked:
            self.pause_reading()  # the next request waits until this answer has been taken
        elif not self._closing and (self._paused or self._buffer):
            self._go_on()

    def _go_on(self) -> None:
        self._resume()
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            self._read_heads(data)

    def answer_for_the_last_time(self) -> None:
        """Draining: an answer that has not begun says that the connection closes after it."""
        if self._exchange is not None:
            self._exchange.close_after_answer()

    def close_if_idle(self) -> None:
        """Draining: close unless a request is being served."""
        if self._exchange is None and not self._closing and not self._buffer:
            self.close_gently()

    def on_deadline(self) -> None:
        """The deadline has passed: whatever was waited for did not come."""
        exchange = self._exchange
        if self._closing:
            self._linger_on()
        elif exchange is not None:
            exchange.on_deadline()
        elif self._buffer and not self.blocked:
            self._refuse(BadMessage(408, "request-timeout", "the request's head did not come in time"))
        else:
            self.close_gently()

    def set_deadline(self, seconds: float) -> None:
        """Wait so long from now, and never longer than the request as a whole may take."""
        deadline = self.plane.now + seconds
        exchange = self._exchange
        if exchange is not None and exchange.expires and exchange.expires < deadline:
            deadline = exchange.expires
        self.deadline = deadline

    def start_tunnel(self, tunnel: "Tunnel") -> None:
        """From here on bytes are passed on unread."""
        self._tunnel = tunnel
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            tunnel.from_client(data)
        self.resume_if_paused()

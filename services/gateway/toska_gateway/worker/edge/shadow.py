"""One copy of a request on its way to a shadow cluster. What comes back is read to its end and thrown away.

    waiting for the body -> (a connection) -> sent -> done        or given up: too long, too late, no room, failed

To a connection a shadow is a caller like an exchange, without anybody behind it: so pools, framing and the strictness
about responses are those of all other requests. What goes wrong is counted and concerns nobody.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from toska_common.breaker import CircuitState

from toska_gateway.worker.caller import Caller
from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.http1 import CHUNKED, CRLF

if TYPE_CHECKING:
    from toska_gateway.worker.edge.mirror import Mirror
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.route import Route
    from toska_gateway.worker.upstream import Upstream

MARK: Final = b"x-toska-mirror: true\r\n"


class Shadow(Caller):
    """A copy; also the stage of the original's body, which passes through it unchanged."""

    __slots__ = (
        "_alive", "_body", "_chunked", "_endpoint", "_mirror", "_plane", "_request", "_size", "_timer", "_upstream",
        "_whole", "cluster", "is_head", "resizes", "route", "waiting",
    )  # fmt: skip

    def __init__(self, mirror: "Mirror", plane: "Plane", cluster: Cluster, route: "Route", *, is_head: bool) -> None:
        self._mirror = mirror
        self._plane = plane
        self.cluster = cluster
        self.route = route  # (a connection is made within the original's timeout)
        self.is_head = is_head
        self.resizes = False
        self.waiting = False
        self._alive = True
        self._request = b""
        self._chunked = False
        self._body: list[bytes] = []
        self._size = 0
        self._whole = False
        self._endpoint: Endpoint | None = None
        self._upstream: Upstream | None = None
        mirror.in_flight += 1
        self._timer: asyncio.TimerHandle = plane.loop.call_later(mirror.timeout_s, self._fail)

    # -- the original's side

    def begin(self, request: bytes, body_length: int) -> None:
        """Take the original's head as it was sent, and how long the body is that it announces."""
        if self._alive and request:
            self._request = request[:-2] + MARK + CRLF
            self._chunked = body_length == CHUNKED
            self._whole = body_length == 0
            self._go()

    def feed(self, payload: bytes) -> bytes:
        """Keep a copy of a piece of the body."""
        if self._alive:
            self._size += len(payload)
            self._body.append(payload)
            if self._size > self._mirror.max_body_bytes:
                self._skip()
        return payload

    def finish(self) -> bytes:
        """The body is whole: now the copy can go."""
        self._whole = True
        self._go()
        return b""

    def abort(self) -> None:
        """The original came to its end, before it was sent or whole: then there is nothing to copy."""
        if not self._whole:
            self._skip()

    def _go(self) -> None:
        if not (self._alive and self._whole and self._request) or self._endpoint is not None:
            return
        cluster = self.cluster
        breaker = cluster.breaker
        if breaker is not None and breaker.state is not CircuitState.CLOSED:
            self._skip()  # its probes are for requests that somebody waits for
            return
        endpoint = cluster.pick(None, 0, self._plane.now)
        if endpoint is None:
            self._skip()
            return
        idle = endpoint.idle
        if cluster.is_full or (not idle and cluster.connections >= cluster.max_connections):
            self._skip()
            return
        self._plane.stats.mirrored += 1
        self._endpoint = endpoint
        cluster.started += 1
        endpoint.in_flight += 1
        endpoint.requests += 1
        if idle:
            self.send_on(idle.pop())
        else:
            self.waiting = True
            self._plane.connector.connect(endpoint, self)

    def _skip(self) -> None:
        if self._alive:
            self._plane.stats.mirror_skipped += 1
            self._end()

    def _fail(self) -> None:
        if self._alive:
            self._plane.stats.mirror_failures += 1
            self._end()

    def _end(self) -> None:
        self._alive = False
        self.waiting = False
        self._timer.cancel()
        self._mirror.in_flight -= 1
        self._body = []
        if self._endpoint is not None:
            self._endpoint.in_flight -= 1
            self.cluster.finished += 1
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    # -- the connection's side

    @property
    def connect_timeout(self) -> float:
        """Seconds that a connection may take: as many as the original's."""
        return self.route.connect_timeout

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether a connection, just made for this copy, is still of use to it."""
        return self.waiting

    def connect_failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """There is no connection, and no second attempt."""
        self._fail()

    def send_on(self, upstream: "Upstream") -> None:
        """Send head and body in one go: the bounds of both are what it may hold of a slow shadow."""
        self.waiting = False
        self._upstream = upstream
        body = b"".join(self._body)
        self._body = []
        if self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        upstream.send(self, self._request + body)

    def response_complete(self, upstream: "Upstream", *, reusable: bool) -> None:
        """The answer has come to its end: the connection serves others again."""
        self._upstream = None
        if reusable:
            upstream.release()
        else:
            upstream.close()
        self._end()

    def upstream_lost(self, upstream: "Upstream") -> None:
        """The connection broke before the answer was complete."""
        if upstream is self._upstream:
            self._upstream = None
            self._fail()

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        """The shadow broke the protocol."""
        self._upstream = None
        upstream.close()
        self._fail()

"""A route's rate limit: whose allowance a request takes from, and what the client is told of it.

Answers carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), refusals also `Retry-After`.
"""

from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from toska_common.balancing.base import hash_of

from toska_gateway.worker.http1 import CRLF, RequestHead

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane


REFUSED: Final = "this route's rate limit is used up; try again after the time in Retry-After"


class RateLimit:
    """The limit of one route, compiled."""

    __slots__ = ("_allowances", "_burst_s", "_by_client", "_header", "_interval_s", "_policy", "_quoted", "_salt")

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        requests, per, burst = settings["requests"], settings["per"], settings["burst"] or settings["requests"]
        self._allowances = plane.allowances(settings["scope"])
        self._interval_s: float = per / requests
        self._burst_s: float = burst * self._interval_s
        key: str = settings["key"]
        self._by_client = key == "client_ip"
        self._header = key.partition(":")[2].encode("latin-1") if key.startswith("header:") else None
        # Whatever is part of this is an allowance of its own: a changed limit does not begin in debt.
        self._salt = f"{route}\0{key}\0{requests}\0{per}\0{burst}\0".encode()
        self._quoted = b'"%b"' % route.encode()
        self._policy = b"ratelimit-policy: %b;q=%d;w=%d\r\n" % (self._quoted, requests, max(1, round(per)))

    def take(self, head: RequestHead, forwarding: "Forwarding") -> float:
        """Take one from the request's allowance; negative if there is none: so many seconds until there is."""
        return self._allowances.take(self._key(head, forwarding), self._interval_s, self._burst_s, monotonic())

    def _key(self, head: RequestHead, forwarding: "Forwarding") -> int:
        if self._by_client:
            if forwarding.trusted:
                return _hash(self._salt + forwarding.client(head))
            # The same for all requests of a connection, and the hash is the dearest part of a limit.
            known = forwarding.rate_keys.get(self._salt)
            if known is None:
                known = forwarding.rate_keys[self._salt] = _hash(self._salt + forwarding.peer)
            return known
        if self._header is not None:
            # Those without the header share an allowance: leaving it out must not be the way round the limit.
            return _hash(self._salt + (head.field(self._header) or b""))
        return _hash(self._salt)

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Serve the request if there is an allowance for it: the way of routes with other gates before this one."""
        slack = self.take(exchange.head, exchange.down.forwarding)
        if slack >= 0:
            exchange.added += self.lines(slack)
            return True
        exchange.plane.stats.rate_limited += 1
        exchange.fail(429, "rate-limited", REFUSED, extra=self.refusal(slack))
        return False

    def lines(self, slack: float) -> bytes:
        """Field lines that tell what is left, by what `take` returned."""
        left = max(0, int(slack / self._interval_s + 1e-6))
        full_in = ceil(min(self._burst_s, self._burst_s - slack))
        return self._policy + b"ratelimit: %b;r=%d;t=%d\r\n" % (self._quoted, left, full_in)

    def refusal(self, slack: float) -> bytes:
        """Field lines of a refusal."""
        wait = max(1, ceil(-slack))
        return b"retry-after: %d\r\n" % wait + self._policy + b"ratelimit: %b;r=0;t=%d" % (self._quoted, wait) + CRLF


def _hash(key: bytes) -> int:
    return hash_of(key) | 1 << 63  # so that no fingerprint equals a time, nor the 0 of a free place

"""A rate limit: whose allowance a request takes from, and what the client is told of it.

Answers carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, from its 8th version on:
structured fields, RFC 9651), refusals also `Retry-After`. One limit alone that is counted on this machine is the whole
policy of its route; `rate_limits` is for several, and for those that the mesh shares.
"""

from collections.abc import Mapping
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from toska_common.balancing.base import hash_of
from toska_common.jwt.claims import find_claim

from toska_gateway.worker.http1 import CRLF, RequestHead

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane


_ERROR: Final = 1e-6
"""More than doubles err by in a sum of times; without it, whole seconds are now and then told as one more."""
REFUSED: Final = "this route's rate limit is used up; try again after the time in Retry-After"


class RateLimit:
    """One limit, compiled.

    Args:
        settings: A limit of the routing document, as plain data.
        route: The route's name.
        plane: What the worker's connections share.
        number: Its place among the route's limits, from 1.

    Attributes:
        interval_s: Seconds in which one more request is allowed.
        burst_s: Seconds that the whole allowance takes to refill.
        policy: What the limit is, as an item of `RateLimit-Policy`.
    """

    __slots__ = (
        "_allowances", "_by_client", "_claim", "_header", "_lines", "_policy_line", "_quoted", "_salt", "burst_s",
        "interval_s", "policy",
    )  # fmt: skip

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane", number: int = 1) -> None:
        requests, per, burst = settings["requests"], settings["per"], settings["burst"] or settings["requests"]
        self._allowances = plane.allowances("worker" if settings["scope"] == "worker" else "machine")
        self.interval_s: float = per / requests
        self.burst_s: float = burst * self.interval_s
        key: str = settings["key"]
        kind, _, name = key.partition(":")
        self._by_client = kind == "client_ip"
        self._header = name.encode("latin-1") if kind == "header" else None
        self._claim = name if kind == "claim" else ""
        # Whatever is part of this is an allowance of its own: a changed limit does not begin in debt.
        self._salt = f"{route}\0{key}\0{requests}\0{per}\0{burst}\0".encode()
        self._quoted = b'"%b"' % (route if number == 1 else f"{route}-{number}").encode()
        self.policy = b"%b;q=%d;w=%d" % (self._quoted, requests, max(1, round(per)))
        self._policy_line = b"ratelimit-policy: %b\r\nratelimit: " % self.policy
        self._lines = self._policy_line + self._quoted + b";r="

    def take(self, head: RequestHead, forwarding: "Forwarding") -> float:
        """Take one from the request's allowance; negative if there is none: so many seconds until there is."""
        key = forwarding.rate_keys.get(self._salt) or self.key(head, forwarding)
        return self._allowances.take(key, self.interval_s, self.burst_s, monotonic())

    def take_by(self, key: int) -> float:
        """Likewise, from the allowance of `key`."""
        return self._allowances.take(key, self.interval_s, self.burst_s, monotonic())

    def give_back(self, key: int) -> None:
        """Return what was taken from the allowance of `key`: the request was not served after all."""
        self._allowances.give_back(key, self.interval_s)

    def key(self, head: RequestHead, forwarding: "Forwarding", claims: Mapping[str, Any] | None = None) -> int:
        """Whose allowance a request takes from.

        Args:
            head: The request.
            forwarding: Who sent it.
            claims: What its verified token says.
        """
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
        if self._claim:
            value = None if claims is None else find_claim(claims, self._claim)
            if isinstance(value, str | int):
                return _hash(self._salt + b"=" + str(value).encode())
            # Nobody's request: neither everybody's allowance, which one could use up for all, nor none.
            return _hash(self._salt + b"@" + forwarding.client(head))
        return _hash(self._salt)

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Serve the request if there is an allowance for it: the way of routes with other gates before this one."""
        slack = self.take_by(self.key(exchange.head, exchange.down.forwarding, exchange.claims))
        if slack >= 0:
            exchange.added += self.lines(slack)
            return True
        exchange.plane.stats.rate_limited += 1
        exchange.fail(429, "rate-limited", REFUSED, extra=self.refusal(slack))
        return False

    def lines(self, slack: float) -> bytes:
        """Field lines that tell what is left, by what `take` returned; in one go, since every answer has them."""
        return b"%b%d;t=%d\r\n" % (
            self._lines,
            int(slack / self.interval_s + _ERROR),
            ceil(self.burst_s - slack - _ERROR),
        )

    def refusal(self, slack: float) -> bytes:
        """Field lines of a refusal."""
        return b"retry-after: %d\r\n" % wait_of(slack) + self._policy_line + self.state(slack) + CRLF

    def left(self, slack: float) -> int:
        """How many more requests the allowance has."""
        return max(0, int(slack / self.interval_s + _ERROR))

    def state(self, slack: float) -> bytes:
        """What is left, as an item of `RateLimit`; if nothing is, its time is when there will be something."""
        if slack < 0:
            return b"%b;r=0;t=%d" % (self._quoted, wait_of(slack))
        return b"%b;r=%d;t=%d" % (
            self._quoted,
            self.left(slack),
            ceil(min(self.burst_s, self.burst_s - slack) - _ERROR),
        )


def wait_of(slack: float) -> int:
    """Whole seconds until a request that was refused would be allowed."""
    return max(1, ceil(-slack - _ERROR))


def _hash(key: bytes) -> int:
    return hash_of(key) | 1 << 63  # so that no fingerprint equals a time, nor the 0 of a free place

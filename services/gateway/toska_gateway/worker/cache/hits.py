"""The short way of a hit: answered as soon as it is read, with no exchange, for requests that ask for nothing special.

Whatever is not plain (conditions, ranges, directives, credentials, a stale response) takes the way through the gate,
which decides all over again. So this may only ever say yes where the gate would, and a test holds it to that.
"""

from typing import TYPE_CHECKING, Final

from toska_gateway.worker.cache.asked import known_lines, sort_line
from toska_gateway.worker.cache.entry import Entry

if TYPE_CHECKING:
    from toska_gateway.worker.cache.policy import CachePolicy
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.http1 import RequestHead

_COOKIE: Final = b"cookie"


class Hit:
    """A response as it goes out, but for what its head ends with; the same for a second."""

    __slots__ = ("body", "head", "second", "status")

    def __init__(self, entry: Entry, name: bytes, age: float, second: int) -> None:
        self.second = second
        self.status = entry.status
        self.body = entry.body
        ttl = entry.lifetime_s - age
        self.head = b"%bage: %d\r\ncache-status: %b; hit; ttl=%d\r\n" % (entry.head, max(0.0, age), name, ttl)


class Hits:
    """What one route answers so."""

    __slots__ = ("_policy", "_prefix")

    def __init__(self, policy: "CachePolicy", prefix: bytes) -> None:
        self._policy = policy
        self._prefix = prefix

    def find_at_once(self, head: "RequestHead", forwarding: "Forwarding") -> Hit | None:
        """The response to a request, if it is one that can be given at once; that is counted as a hit."""
        if head.method != b"GET" or head.body_length or head.holds_token or head.upgrade or forwarding.trusted:
            return None
        policy = self._policy
        cookies = False
        known = known_lines.get
        for part in head.parts:
            kind = known(part)
            if kind is None:
                kind = sort_line(part)
            if kind:
                if kind != _COOKIE:
                    return None
                cookies = True
        key = b"%b\0%b\0%b\0%b\0%b" % (self._prefix, forwarding.scheme, head.host.lower(), head.path, head.query)
        entry = policy.cache.store.find_if_there(key)
        if entry is None or (cookies and not entry.for_cookies and not policy.cookies_harmless):
            return None
        now = policy.now
        age = now - entry.born_at
        if age >= entry.lifetime_s or entry.no_cache:
            return None
        policy.count_hit(len(entry.body))
        second = int(now)
        hit = entry.hit
        if hit is None or hit.second != second:
            hit = entry.hit = Hit(entry, policy.name, age, second)
        return hit

"""Routes with several clusters: which of them takes a request, and what makes callers stay with theirs.

a part with `when` whose conditions hold ─▶ that part; the first counts
else `sticky`, and the request has the key ─▶ by the key: the same part every time (`balancing.rendezvous`)
else ─▶ by weight, drawn anew
"""

import random
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from toska_common.balancing.rendezvous import Rendezvous
from toska_common.jwt.claims import find_claim

from toska_gateway.worker.conditions import Condition, compile_conditions
from toska_gateway.worker.http1 import RequestHead
from toska_gateway.worker.keys import find_cookie

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_POINTS: Final = 1 << 20
"""Of so many numbers a cookie holds one: enough to tell the smallest weight, and too few to tell who somebody is."""
_POINT: Final = re.compile(rb"[0-9a-f]{5}")


class Split:
    """The parts of one route.

    Attributes:
        names: Clusters of the parts that go by weight.
        whens: Conditions of the others, and their clusters.
    """

    __slots__ = ("_bounds", "names", "weights", "whens")

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        shared = [(part["cluster"], part["weight"]) for part in parts if part.get("when") is None and part["weight"]]
        self.names: tuple[str, ...] = tuple(name for name, _ in shared)
        self.weights: tuple[int, ...] = tuple(weight for _, weight in shared)
        self._bounds = list(accumulate(self.weights))
        self.whens: tuple[tuple[tuple[Condition, ...], str], ...] = tuple(
            (compile_conditions(part["when"], exact=True), part["cluster"])
            for part in parts
            if part.get("when") is not None
        )

    def choose(self, head: RequestHead, forwarding: "Forwarding") -> str:
        """The cluster of a request."""
        if self.whens:
            name = self.find_when(head, forwarding)
            if name is not None:
                return name
        return self.draw()

    def find_when(self, head: RequestHead, forwarding: "Forwarding") -> str | None:
        """The cluster of the first part whose conditions hold."""
        for conditions, name in self.whens:
            for condition in conditions:
                if not condition.holds(head, forwarding):
                    break
            else:
                return name
        return None

    def draw(self) -> str:
        """A cluster by weight."""
        if len(self.names) == 1:
            return self.names[0]
        ticket = random.random() * self._bounds[-1]  # noqa: S311 - a split of traffic, no secret
        for name, bound in zip(self.names, self._bounds, strict=True):
            if ticket < bound:
                return name
        return self.names[-1]

    def shares(self) -> list[tuple[str, float]]:
        """Of what goes by weight, how much each cluster gets."""
        total = sum(self.weights)
        return [(name, weight / total) for name, weight in zip(self.names, self.weights, strict=True)]


class Sticky:
    """A gate that chooses the cluster by who asks; it stands after the one that verifies tokens."""

    __slots__ = ("_attributes", "_claim", "_client_ip", "_cookie", "_header", "_plane", "_rendezvous", "split")

    def __init__(self, settings: Mapping[str, Any], split: Split, plane: "Plane") -> None:
        self.split = split
        self._plane = plane
        self._rendezvous = Rendezvous(split.names, split.weights)
        self._header: bytes = (settings["header"] or "").encode("latin-1")
        self._claim: str = settings["claim"] or ""
        self._client_ip: bool = settings["client_ip"]
        self._cookie: bytes = (settings["cookie"] or settings["set_cookie"] or "").encode("ascii")
        self._attributes: bytes | None = None
        if settings["set_cookie"] is not None:
            lasts = b"; Max-Age=%d" % int(settings["ttl"]) if settings["ttl"] else b""
            secure = b"; Secure" if settings["secure"] else b""
            self._attributes = b"; Path=/; HttpOnly; SameSite=Lax" + secure + lasts

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Lead the request to its caller's cluster, unless its version has one of its own."""
        if passage.led:
            return True
        name = self.split.find_when(exchange.head, exchange.down.forwarding)
        if name is None:
            key = self.key(exchange.head, exchange.down.forwarding, passage.claims)
            if key is None and self._attributes is not None:
                key = b"%05x" % random.randrange(_POINTS)  # noqa: S311 - a place in a split, no secret
                exchange.added += b"set-cookie: %b=%b%b\r\n" % (self._cookie, key, self._attributes)
            name = self.split.draw() if key is None else self.of_key(key)
        cluster = self._plane.cluster(name)
        if cluster is None:
            exchange.fail(503, "upstream-unavailable", f"cluster {name} is not known yet")
            return False
        exchange.cluster = cluster
        return True

    def of_key(self, key: bytes) -> str:
        """The cluster of whoever has this key."""
        return self._rendezvous.pick(key)

    @property
    def what(self) -> str:
        """What the key is, for people."""
        if self._header:
            return f"header {self._header.decode()}"
        if self._claim:
            return f"claim {self._claim}"
        return "client's address" if self._client_ip else f"cookie {self._cookie.decode()}"

    def key(self, head: RequestHead, forwarding: "Forwarding", claims: Mapping[str, Any] | None) -> bytes | None:
        """What a request's caller is known by, if it has that; `claims` are those of its token."""
        if self._header:
            return head.field(self._header)
        if self._client_ip:
            return forwarding.client(head)
        if self._claim:
            value = None if claims is None else find_claim(claims, self._claim)
            return None if value is None else str(value).encode("utf-8", "surrogatepass")
        value = find_cookie(head, self._cookie)
        if self._attributes is not None and (value is None or _POINT.fullmatch(value) is None):
            return None  # what is not of our making is made anew
        return value


def compile_split(parts: Sequence[Mapping[str, Any]]) -> Split | None:
    """What chooses among the parts of `to`; `None` if there is nothing to choose."""
    split = Split(parts) if len(parts) > 1 else None
    return split if split is not None and (len(split.names) > 1 or split.whens) else None

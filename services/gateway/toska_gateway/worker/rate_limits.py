"""A route's rate limits where there are several, or where all gateways of the mesh count together.

Every limit has to allow a request; if one does not, what was taken from the others goes back. Clients are told of the
tightest. While Redis is away, limits at mesh scope are counted on this machine, and `RateLimit-Policy` says so.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.mesh_allowances import MeshAllowances, Take, as_text
from toska_gateway.worker.rate_limit import REFUSED, RateLimit, wait_of

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_ALONE: Final = b";toska-scope=machine"
"""A parameter of our own, as the draft lets servers have: the limit is the mesh's, and counted on this machine."""


class _Limit:
    """One of them, and how it is counted.

    Attributes:
        mesh: Where the mesh counts it; `None` if it is counted on this machine anyway.
    """

    __slots__ = ("burst_us", "interval_us", "limit", "mesh")

    def __init__(self, limit: RateLimit, mesh: MeshAllowances | None) -> None:
        self.limit = limit
        self.mesh = mesh
        self.interval_us = as_text(limit.interval_s)
        self.burst_us = as_text(limit.burst_s)


class _Taking:
    """What one request has taken so far.

    Attributes:
        slacks: By limit, in their order; `None` while the mesh is being asked.
        alone: Which of them were counted here although the mesh should have.
    """

    __slots__ = ("alone", "exchange", "keys", "slacks", "takes")

    def __init__(self, exchange: "Exchange", keys: list[int]) -> None:
        self.exchange = exchange
        self.keys = keys
        self.slacks: list[float | None] = [None] * len(keys)
        self.alone: set[int] = set()
        self.takes: list[Take] = []

    def cancel(self) -> None:
        """The request has come to its end, and nobody wants to know."""
        for take in self.takes:
            take.cancel()


class RateLimits:
    """The limits of one route, compiled."""

    __slots__ = ("_limits", "_stats")

    def __init__(self, limits: Sequence[_Limit], plane: "Plane") -> None:
        self._limits = limits
        self._stats = plane.stats

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Serve the request if every limit allows it; waits while the mesh is asked."""
        head, forwarding, claims = exchange.head, exchange.down.forwarding, exchange.claims
        taking = _Taking(exchange, [one.limit.key(head, forwarding, claims) for one in self._limits])
        asked: list[tuple[int, MeshAllowances]] = []
        for number, one in enumerate(self._limits):
            if one.mesh is not None and one.mesh.shared:
                asked.append((number, one.mesh))
            else:
                self._take_here(taking, number)
        if not asked or any(slack is not None and slack < 0 for slack in taking.slacks):
            return self._decide(taking)
        passage.waits_for = taking
        for number, mesh in asked:
            one, told = self._limits[number], partial(self._told, taking, number)
            taking.takes.append(mesh.ask(taking.keys[number], one.interval_us, one.burst_us, told))
        return False

    def _take_here(self, taking: _Taking, number: int) -> None:
        one = self._limits[number]
        taking.slacks[number] = one.limit.take_by(taking.keys[number])
        if one.mesh is not None:
            taking.alone.add(number)

    def _told(self, taking: _Taking, number: int, slack: float | None) -> None:
        if slack is None:
            self._take_here(taking, number)
        else:
            taking.slacks[number] = slack
        if None not in taking.slacks and self._decide(taking):
            taking.exchange.pass_on()

    def _decide(self, taking: _Taking) -> bool:
        """Let the request go on, or refuse it; limits that were not asked because another refuses do not matter."""
        exchange = taking.exchange
        self._stats.rate_limits_alone += bool(taking.alone)
        known = [(slack, number) for number, slack in enumerate(taking.slacks) if slack is not None]
        slack, number = min(known)
        if slack >= 0:
            _, number, slack = min((self._limits[number].limit.left(slack), number, slack) for slack, number in known)
            exchange.added += self._policies(taking) + self._limits[number].limit.state(slack) + b"\r\n"
            return True
        for other, taken in known:
            if other >= 0:
                self._give_back(taking, taken)
        self._stats.rate_limited += 1
        lines = self._policies(taking) + self._limits[number].limit.state(slack)
        exchange.fail(429, "rate-limited", REFUSED, extra=lines + b"\r\nretry-after: %d\r\n" % wait_of(slack))
        return False

    def _give_back(self, taking: _Taking, number: int) -> None:
        one, key = self._limits[number], taking.keys[number]
        if one.mesh is None or number in taking.alone:
            one.limit.give_back(key)
        else:
            one.mesh.give_back(key, one.interval_us, one.burst_us)

    def _policies(self, taking: _Taking) -> bytes:
        items = [
            one.limit.policy + _ALONE if number in taking.alone else one.limit.policy
            for number, one in enumerate(self._limits)
        ]
        return b"ratelimit-policy: %b\r\nratelimit: " % b", ".join(items)


def compile_rate_limits(settings: Sequence[dict[str, Any]], route: str, plane: "Plane") -> RateLimit | RateLimits:
    """A route's limits, compiled."""
    limits = [RateLimit(one, route, plane, number) for number, one in enumerate(settings, 1)]
    shared = [one["scope"] == "mesh" and plane.cache_url.startswith("redis") for one in settings]
    if len(limits) == 1 and not shared[0]:
        return limits[0]
    mesh = plane.mesh_allowances() if any(shared) else None
    return RateLimits(
        [_Limit(limit, mesh if is_shared else None) for limit, is_shared in zip(limits, shared, strict=True)], plane
    )

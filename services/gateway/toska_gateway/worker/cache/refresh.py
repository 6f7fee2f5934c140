"""Asking for a stored response anew while the stale one is served: a request of ours that no client waits for."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.cache.fetch import FAILURE_S, Fetch, copy_of
from toska_gateway.worker.downstream import Downstream
from toska_gateway.worker.exchange import Exchange
from toska_gateway.worker.http1 import BadMessage, ResponseHead
from toska_gateway.worker.outbox import Outlet
from toska_gateway.worker.passage import Passage
from toska_gateway.worker.policies import Shaper

if TYPE_CHECKING:
    from toska_gateway.worker.cache.policy import CachePolicy
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.plane import Plane

MOST_AT_ONCE: Final = 128
"""Refreshes that one worker has under way; stale responses beyond that wait for their next request."""


class _Nowhere(asyncio.Transport):
    """A transport to nobody."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        """It never closes."""
        return False


class Errand(Downstream):
    """Stands where a client's connection does: what would be written to it is dropped."""

    __slots__ = ("_due", "_timer", "_under_way", "background")

    def __init__(self, plane: "Plane", forwarding: "Forwarding", peer: str, under_way: "set[Errand]") -> None:
        super().__init__(plane, peer)
        self.transport = Outlet(_Nowhere(), plane.outbox)
        self.forwarding = forwarding
        self.background: Refresh | None = None
        self._under_way = under_way
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        under_way.add(self)

    def set_deadline(self, seconds: float) -> None:
        """Wait so long from now, and never longer than the request as a whole may take."""
        due = self.plane.loop.time() + seconds
        exchange = self.background
        if exchange is not None and exchange.expires:
            due = min(due, exchange.expires)
        self._due = due
        if self._timer is None and exchange is not None:
            self._timer = self.plane.loop.call_at(due, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        exchange = self.background
        if exchange is None:
            return
        if self._due > self.plane.loop.time():  # it has been moved on since
            self._timer = self.plane.loop.call_at(self._due, self._look_at_the_clock)
        else:
            exchange.on_deadline()

    def exchange_done(self, *, close: bool) -> None:
        """It is over, one way or the other."""
        self.background = None
        self._under_way.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """The response was cut off."""
        exchange, self.background = self.background, None
        if exchange is not None:
            exchange.client_gone()
        self.exchange_done(close=True)

    def pause_reading(self) -> None:
        """There is nothing to read."""

    def resume_if_paused(self) -> None:
        """There is nothing to read."""


class Refresh(Exchange):
    """An exchange whose response only the cache looks at, and which is in nobody's statistics."""

    __slots__ = ("_cache_policy",)

    def __init__(self, policy: "CachePolicy", errand: Errand, exchange: Exchange) -> None:
        head = copy_of(exchange.head)
        head.method = b"GET"
        super().__init__(exchange.plane, errand, head, exchange.route, exchange.cluster)
        self._cache_policy = policy

    def _shape(self, head: ResponseHead, body: bytes, shapers: Sequence[Shaper], *, last: bool) -> None:
        # The others expect requests that have passed their gates, and their work would be for nobody.
        super()._shape(head, body, (self._cache_policy,), last=last)

    def fail(self, status: int, code: str, detail: str, *, retry_after: int = 0, extra: bytes = b"") -> None:
        fetch = None if self.passage is None else self.passage.cached
        if isinstance(fetch, Fetch) and fetch.entry is not None:
            fetch.entry.failed_until = self.plane.now + FAILURE_S
            fetch.entry = None  # nobody is there who could be given it instead
        super().fail(status, code, detail, retry_after=retry_after, extra=extra)

    def _record(self) -> None:
        """No client asked."""


def refresh(policy: "CachePolicy", exchange: Exchange, fetch: Fetch, under_way: set[Errand]) -> None:
    """Send `fetch` on its way in the background, on behalf of a request that is served what is stale."""
    errand = Errand(exchange.plane, exchange.down.forwarding, exchange.down.peer, under_way)
    background = errand.background = Refresh(policy, errand, exchange)
    background.passage = Passage(())
    background.passage.holds = False
    if exchange.passage is not None:
        background.passage.claims = exchange.passage.claims
        background.passage.path = exchange.passage.path  # another's path would be stored as this one's
    fetch.exchange = background
    fetch.in_background = True
    background.passage.cached = fetch
    fetch.prepare()
    errand.set_deadline(exchange.route.response_timeout)
    try:
        background.start()
    except BadMessage:  # it has been here before (RFC 9110 §7.6.3): nothing is sent
        errand.abort()

"""Asking for a stored response anew while the stale one is served: a request of ours that no client waits for."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from toska_gateway.worker.cache.fetch import FAILURE_S, Fetch, copy_of
from toska_gateway.worker.exchange import Exchange
from toska_gateway.worker.http1 import BadMessage, ResponseHead
from toska_gateway.worker.passage import Passage
from toska_gateway.worker.policies import Shaper

if TYPE_CHECKING:
    from toska_gateway.worker.cache.policy import CachePolicy
    from toska_gateway.worker.downstream import Downstream
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.plane import Plane

MOST_AT_ONCE: Final = 128
"""Refreshes that one worker has under way; stale responses beyond that wait for their next request."""


class _Nowhere:
    """A transport to nobody."""

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    write_soon = write

    def is_closing(self) -> bool:
        """It never closes."""
        return False


class Errand:
    """Stands where a client's connection does: what would be written to it is dropped."""

    def __init__(self, plane: "Plane", forwarding: "Forwarding", peer: str, under_way: "set[Errand]") -> None:
        self.plane = plane
        self.forwarding = forwarding
        self.peer = peer
        self.transport = _Nowhere()
        self.blocked = False
        self.paused = False
        self.eof = False
        self.exchange: Refresh | None = None
        self._under_way = under_way
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        under_way.add(self)

    def set_deadline(self, seconds: float) -> None:
        """Wait so long from now, and never longer than the request as a whole may take."""
        deadline = self.plane.loop.time() + seconds
        exchange = self.exchange
        if exchange is not None and exchange.expires:
            deadline = min(deadline, exchange.expires)
        self._deadline = deadline
        if self._timer is None and exchange is not None:
            self._timer = self.plane.loop.call_at(deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        exchange = self.exchange
        if exchange is None:
            return
        if self._deadline > self.plane.loop.time():  # it has been moved on since
            self._timer = self.plane.loop.call_at(self._deadline, self._look_at_the_clock)
        else:
            exchange.on_deadline()

    def write_problem(self, *args: Any, **more: Any) -> None:
        """Nobody reads it."""

    def exchange_done(self, *, close: bool) -> None:
        """It is over, one way or the other."""
        self.exchange = None
        self._under_way.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """The response was cut off."""
        exchange, self.exchange = self.exchange, None
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
        super().__init__(exchange.plane, cast("Downstream", errand), head, exchange.route, exchange.cluster)
        self._cache_policy = policy

    def _pass_on_head(self, head: ResponseHead, body: bytes, shapers: Sequence[Shaper], *, last: bool) -> None:
        # The others expect requests that have passed their gates, and their work would be for nobody.
        super()._pass_on_head(head, body, (self._cache_policy,), last=last)

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
    background = errand.exchange = Refresh(policy, errand, exchange)
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

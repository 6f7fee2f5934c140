"""What the routes of a worker share of the response cache: the store, what is under way, and invalidation."""

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.cache.endings import GROUP, ROUTE, URL, Endings
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.fetch import Fetch
from toska_gateway.worker.cache.flights import Flight
from toska_gateway.worker.cache.keys import read_url, write_url
from toska_gateway.worker.cache.refresh import MOST_AT_ONCE, Errand
from toska_gateway.worker.cache.second_level import SecondLevel
from toska_gateway.worker.cache.store import ResponseStore

if TYPE_CHECKING:
    from toska_gateway.worker.cache.policy import CachePolicy
    from toska_gateway.worker.plane import Plane

_SLICE: Final = 250


class ResponseCache:
    """One worker's responses.

    Attributes:
        store: What is kept.
        flights: What is being asked for, by what it would be stored under.
        errands: Refreshes in the background.
        shared: What other gateways keep too, if there is such a place.
        endings: What events have ended lately.
    """

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self.store = ResponseStore(plane.cache_bytes)
        self.flights: dict[bytes, Flight[Fetch]] = {}
        self.errands: set[Errand] = set()
        self.shared = SecondLevel(plane) if plane.cache_url.startswith("redis") else None
        self.endings = Endings(monotonic())
        self._evictions = 0

    @property
    def may_refresh(self) -> bool:
        """Whether another refresh may begin."""
        return len(self.errands) < MOST_AT_ONCE and not self._plane.draining

    def keep(self, entry: Entry, policy: "CachePolicy") -> None:
        """Store a response."""
        stats = self._plane.stats
        stats.cache_stored += self.store.put(entry)
        stats.cache_evictions += self.store.evictions - self._evictions
        self._evictions = self.store.evictions
        if self.shared is not None:
            self.shared.keep(entry)

    def adopt(self, entry: Entry) -> None:
        """Keep here what others have shared."""
        names = self.store.names_for(entry.primary, entry.vary)
        if names == entry.vary:
            self.store.put(entry)

    def forget(self, entry: Entry) -> None:
        """Forget a response that the origin has replaced by one that is not kept."""
        self.store.remove(entry)
        if self.shared is not None:
            self.shared.forget(entry.url)

    def invalidate(self, urls: list[bytes]) -> None:
        """These have changed (RFC 9111 §4.4): forget them, and have the other workers do the same."""
        for url in urls:
            self.store.forget_url(url)
            if self.shared is not None:
                self.shared.forget(url)
        self._plane.spread({"op": "forget", "urls": [write_url(url) for url in urls]})

    def forget_urls(self, urls: list[str]) -> int:
        """Forget what another worker, or an operator, says has changed; returns how many responses that were."""
        return sum(self.store.forget_url(read_url(url)) for url in urls)

    def purge(self, message: dict[str, Any]) -> int:
        """Forget what an operator names: everything, a route's, or a URL's; returns how many responses that were."""
        url, route = message.get("url"), message.get("route")
        if url:
            if self.shared is not None:
                self.shared.forget(read_url(url))
            return self.forget_urls([url])
        if self.shared is not None:
            self.shared.purge(route or "")
        return self.store.forget_route(route) if route else self.store.forget_all()

    def end(self, message: dict[str, Any]) -> None:
        """Forget what events say is out of date, of routes that listen to them; without names everything of theirs.

        What is in Redis stays there: all gateways hear the same.
        """
        now = monotonic()
        groups = [group.encode() for group in message.get("groups", ())]
        urls = [read_url(url) for url in message.get("urls", ())]
        routes: list[str] = message.get("routes", [])
        if not (groups or urls or routes):
            self.endings.end_all(now)
            self._drop(self.store.of_events())
            return
        self.endings.end(GROUP, groups, now)
        self.endings.end(URL, urls, now)
        self.endings.end(ROUTE, (route.encode() for route in routes), now)
        self._drop(self.store.find_ended(groups, urls, frozenset(routes)))

    def _drop(self, entries: list[Entry]) -> None:
        # A full store takes a tenth of a second, for which nobody's request is to wait.
        for entry in entries[-_SLICE:]:
            self.store.remove(entry)
        del entries[-_SLICE:]
        if entries:
            self._plane.loop.call_soon(self._drop, entries)

    def has_ended(self, entry: Entry, made_at: float) -> bool:
        """Whether an event may have ended a response that was asked for at `made_at` (monotonic seconds)."""
        return entry.groups is not None and self.endings.ended(entry, made_at)

    def state(self) -> tuple[int, int]:
        """Bytes and entries that are stored, in the order of `toska_gateway.gauges.Gauges.OF_CACHES`."""
        return self.store.used, len(self.store)

"""A route's cache: answers requests from what is stored, sends the others on, and looks at what comes back.

    request ─┬─ fresh in store ──────────────► answered
             ├─ stale, within s-w-r ─────────► answered, refreshed in the background
             ├─ being asked for by another ──► waits for that
             └─ otherwise ───────────────────► upstream ─► stored, or 304 and answered from the store

What requests came to is counted by route. Served: `hit` fresh, `stale` while it is asked for anew, `revalidated` after
the origin said it had not changed, `coalesced` with what another request fetched, `stand_in` for an error. Not served:
`miss`, and `bypass`, which no stored response could have answered.
"""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.cache.answering import answer_with
from toska_gateway.worker.cache.asked import Asked
from toska_gateway.worker.cache.cache import ResponseCache
from toska_gateway.worker.cache.directives import NOTHING_ASKED
from toska_gateway.worker.cache.endings import CLOCKS_DIFFER_S
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.fetch import Fetch
from toska_gateway.worker.cache.flights import Flight, Waiter
from toska_gateway.worker.cache.freshness import FreshnessRules
from toska_gateway.worker.cache.hits import Hits
from toska_gateway.worker.cache.keys import KeyMaker, NoKey, same_origin
from toska_gateway.worker.cache.refresh import refresh
from toska_gateway.worker.cache.selection import Use, judge
from toska_gateway.worker.cache.storing import StoringRules, groups_in
from toska_gateway.worker.cache.vary import variant_key
from toska_gateway.worker.cluster import NOWHERE
from toska_gateway.worker.http1 import BadMessage, ResponseHead, field_name, field_value

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.policies import BodyStage

NAME: Final = b"toska"
"""Ours in Cache-Status."""
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})
_PLACES: Final = frozenset({b"location", b"content-location"})
_A_DAY_S: Final = timedelta(days=1).total_seconds()


class Change:
    """An unsafe request: if it succeeds, what is stored of its URL is out of date (RFC 9111 §4.4)."""

    __slots__ = ("_policy", "_url")

    def __init__(self, policy: "CachePolicy", url: bytes) -> None:
        self._policy = policy
        self._url = url

    def answered(self, exchange: "Exchange", head: ResponseHead) -> None:
        """The response's head is here."""
        if 200 <= head.status < 400:
            urls = [self._url]
            for part in head.parts[1:]:
                if field_name(part) in _PLACES:
                    place = same_origin(self._url, field_value(part))
                    if place is not None and place not in urls:
                        urls.append(place)
            self._policy.cache.invalidate(urls)

    def stand_in(self, exchange: "Exchange") -> bool:
        """Nothing stands in for it, and what has failed may have changed something all the same."""
        self.cancel()
        return False

    def cancel(self) -> None:
        """It may have changed something all the same, and the client does not know."""
        self._policy.cache.invalidate([self._url])


class Witness:
    """Notes what a request shows of its user, ahead of filters that may put something of their own in its place.

    What an upstream answers to `X-User: alice`, made out of a cookie by a filter, is Alice's all the same.
    """

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Look, and let it go on."""
        asked = Asked(exchange.head)
        passage.showed = asked.has_authorization, asked.has_cookies
        return True


class CachePolicy:
    """The cache of one route, compiled.

    Attributes:
        route: Its name.
        cache: What all routes of the worker share.
        name: Ours in Cache-Status.
        rules: What is stored.
        cookies_harmless: Requests' cookies are part of the key, or said not to matter.
        max_entry_bytes: Of a body that is stored.
    """

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        if plane.cache is None:
            plane.cache = ResponseCache(plane)
        self.route = route
        self.name = NAME
        self.cache = plane.cache
        self._route_stats = plane.stats.route(route)
        self.max_entry_bytes: int = settings["max_entry_bytes"]
        self._plane = plane
        self._keys = KeyMaker(route, settings)
        self._methods = frozenset(method.encode() for method in settings["methods"])
        self._obeys = settings["request_directives"] == "obey"
        self._patience_s: float = settings["coalesce_timeout"]
        self.cookies_harmless = bool(settings["ignore_cookies"] or settings["key"]["cookies"])
        self.rules = StoringRules(
            statuses=frozenset(settings["statuses"]),
            freshness=FreshnessRules(
                default_ttl_s=settings["default_ttl"],
                heuristic_ratio=settings["heuristic_percent"] / 100,
                heuristic_max_s=_A_DAY_S,
            ),
            stale_while_revalidate_s=settings["stale_while_revalidate"],
            stale_if_error_s=settings["stale_if_error"],
            vary_ignored=frozenset(name.encode() for name in settings["vary_ignore"]),
            strip_set_cookie=settings["strip_set_cookie"],
            cookies_harmless=self.cookies_harmless,
            ended_by_events=settings["forget_on_events"],
        )

    def hits(self, cluster: str) -> Hits | None:
        """The short way of hits, for a route that leads to this cluster alone."""
        if self._keys.divides or b"GET" not in self._methods:
            return None
        return Hits(self, self._keys.prefix(cluster))

    def count_hit(self, size: int) -> None:
        """Count a hit on the short way, with a body of so many bytes."""
        stats = self._plane.stats
        stats.cache_served_bytes += size
        self._route_stats.cached("hit")

    @property
    def now(self) -> float:
        """Monotonic seconds, as old as the worker's clock may be."""
        return self._plane.now

    # -- the gate

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Answer from the store, or send the request on."""
        head = exchange.head
        if head.method not in self._methods or exchange.cluster is NOWHERE:
            if head.method not in _SAFE:
                passage.cached = Change(self, self._keys.url(exchange))
            return True
        asked = Asked(head)
        if not self._obeys:
            asked.directives = NOTHING_ASKED
        # A body is part of no key, and neither are the mesh's own tokens.
        if asked.is_for_origin or asked.directives.no_store or head.body_length or exchange.upgrading:
            return self._pass_by(exchange, passage, asked)
        if head.holds_token:
            return self._pass_by(exchange, passage, asked)
        try:
            url = self._keys.url(exchange)
            primary = self._keys.primary(exchange, url)
        except NoKey:
            return self._pass_by(exchange, passage, asked)
        authorized = asked.has_authorization or passage.claims is not None or passage.showed[0]
        cookies = (asked.has_cookies or passage.showed[1]) and not self.cookies_harmless
        store = self.cache.store
        key = store.key_for(primary, head)
        entry = store.find_plain(key)
        why = b"fwd=uri-miss" if key is primary else b"fwd=vary-miss"
        if entry is not None and ((authorized and not entry.for_authorized) or (cookies and not entry.for_cookies)):
            # It was given to somebody who did not say who they are; who does may be given something else.
            entry, why = None, b"fwd=bypass"
        if entry is not None:
            use = judge(entry, asked.directives, self._plane.now)
            if use is Use.HIT:
                exchange.route.stats.cached("hit")
                self._answer(exchange, asked, entry)
                return False
            why = b"fwd=request" if use is Use.VALIDATE_ASKED else b"fwd=stale"
        else:
            use = None
        fetch = Fetch(self, exchange, asked, why)
        fetch.url, fetch.primary, fetch.entry = url, primary, entry
        fetch.authorized, fetch.cookies = authorized, cookies
        # Those with credentials may be answered otherwise, so they wait for each other and for nobody else.
        fetch.mark = key + (b"\x01" if authorized else b"\x02" if cookies else b"\x03")
        if use is Use.WHILE_REVALIDATING and entry is not None:
            exchange.route.stats.cached("stale")
            self._refresh(exchange, fetch)
            self._answer(exchange, asked, entry)
            return False
        if asked.directives.only_if_cached:
            exchange.fail(504, "not-cached", "the request asks for a stored response only, and there is none to use")
            return False
        return self._send_on(exchange, passage, fetch)

    def _pass_by(self, exchange: "Exchange", passage: "Passage", asked: Asked) -> bool:
        """Nothing is stored of it, and nothing stored is used."""
        if asked.directives.only_if_cached:
            exchange.fail(504, "not-cached", "the request asks for a stored response only, and there is none to use")
            return False
        passage.cached = Fetch(self, exchange, asked, b"fwd=request" if asked.directives.no_store else b"fwd=bypass")
        return True

    def _send_on(self, exchange: "Exchange", passage: "Passage", fetch: Fetch) -> bool:
        """Ask the upstream, or wait for whoever does; tells whether the request goes on now."""
        cache, mark = self.cache, fetch.mark
        fetch.storable = exchange.head.method == b"GET"
        if self._patience_s and not cache.store.is_uncacheable(mark, self._plane.now):
            flight = cache.flights.get(mark)
            if flight is not None and self._may_join(flight):
                waiter = Waiter(flight, exchange, fetch, self._landed)
                waiter.wait_for(self._patience_s, self._plane.loop)
                passage.waits_for = waiter
                return False
            if fetch.storable and not fetch.asked.is_conditional:
                fetch.flight = Flight(mark, cache.flights)
        shared = cache.shared
        if shared is not None and shared.shared and fetch.storable and fetch.entry is None:
            passage.cached = fetch
            passage.waits_for = shared.find(
                fetch.url, fetch.primary, self.route, exchange.head, partial(self._found, exchange, fetch)
            )
            return False
        fetch.prepare()
        passage.cached = fetch
        return True

    def _found(self, exchange: "Exchange", fetch: Fetch, entry: Entry | None) -> None:
        """The second level has said what it has."""
        passage = exchange.passage
        if passage is None or exchange.responding:
            return
        passage.waits_for = passage.cached = None
        if entry is not None and self._suits(entry, fetch) and self._is_current(entry):
            self.cache.adopt(entry)
            if judge(entry, fetch.asked.directives, self._plane.now) is Use.HIT:
                exchange.route.stats.cached("hit")
                fetch.land(entry)
                member = b"%b; hit; ttl=%d; detail=shared" % (self.name, entry.ttl(self._plane.now))
                self.serve(exchange, fetch.asked, entry, member)
                return
            fetch.entry = entry
        self.forward(exchange, fetch)

    def _may_join(self, flight: Flight[Fetch]) -> bool:
        """Whether what it brings cannot be what an event has ended since it took off."""
        return not self.rules.ended_by_events or flight.began_at > self.cache.endings.last_at

    def _is_current(self, entry: Entry) -> bool:
        """Whether no event has ended what another gateway has shared."""
        if not self.rules.ended_by_events:
            return True
        entry.groups = groups_in(entry.parts())
        return entry.groups is not None and not self.cache.has_ended(entry, entry.shared_at - CLOCKS_DIFFER_S)

    def _refresh(self, exchange: "Exchange", fetch: Fetch) -> None:
        cache = self.cache
        if fetch.mark in cache.flights or not cache.may_refresh:
            return
        fetch.storable = True
        fetch.flight = Flight(fetch.mark, cache.flights)
        refresh(self, exchange, fetch, cache.errands)

    # -- after waiting

    def _landed(self, waiter: Waiter[Fetch], entry: Entry | None) -> None:
        """What was waited for is here, or will not come."""
        exchange, fetch = waiter.exchange, waiter.ticket
        if exchange.passage is not None:
            exchange.passage.waits_for = None
        if entry is None:
            self.forward(exchange, fetch)
        elif self._suits(entry, fetch):
            exchange.route.stats.cached("coalesced")
            member = b"%b; %b; collapsed; ttl=%d" % (self.name, fetch.why, entry.ttl(self._plane.now))
            self.serve(exchange, fetch.asked, entry, member)
        else:
            self._look_again(exchange, fetch)

    def _look_again(self, exchange: "Exchange", fetch: Fetch) -> None:
        """It was another variant: now that it is known what it varies by, those of one variant wait together."""
        passage, store = exchange.passage, self.cache.store
        mark = store.key_for(fetch.primary, exchange.head) + fetch.mark[-1:]
        if passage is None or exchange.responding or mark == fetch.mark:
            self.forward(exchange, fetch)
            return
        fetch.mark = mark
        if self._send_on(exchange, passage, fetch):
            self._pass_on(exchange)

    def _suits(self, entry: Entry, fetch: Fetch) -> bool:
        """Whether the response to another one's request answers this one too (RFC 9111 §4)."""
        head = fetch.exchange.head
        key = variant_key(fetch.primary, entry.vary, head) if entry.vary else fetch.primary
        if entry.key != key:
            return False
        return (not fetch.authorized or entry.for_authorized) and (not fetch.cookies or entry.for_cookies)

    def forward(self, exchange: "Exchange", fetch: Fetch) -> None:
        """Send a request on that has waited, now that it need not wait any longer."""
        passage = exchange.passage
        if passage is None or exchange.responding:
            return
        passage.waits_for = None
        fetch.prepare()
        passage.cached = fetch
        self._pass_on(exchange)

    def _pass_on(self, exchange: "Exchange") -> None:
        try:
            exchange.pass_on()
        except BadMessage as error:
            exchange.fail(error.status, error.code, error.reason)

    # -- answers

    def _answer(self, exchange: "Exchange", asked: Asked, entry: Entry) -> None:
        self.serve(exchange, asked, entry, b"%b; hit; ttl=%d" % (self.name, entry.ttl(self._plane.now)))

    def serve(self, exchange: "Exchange", asked: Asked, entry: Entry, member: bytes) -> None:
        """Answer a request with what is stored."""
        route = exchange.route
        joined = not route.late_shapers and route.response_edits is None
        now = self._plane.now
        head, body = answer_with(entry, asked, member, now, is_head=exchange.is_head, joined=joined)
        self._plane.stats.cache_served_bytes += len(body)
        exchange.serve(head, body)

    # -- the shaper

    def shape(self, exchange: "Exchange", head: ResponseHead) -> "BodyStage | None":
        """Look at an upstream's response, before anything else changes it."""
        passage = exchange.passage
        if passage is None or passage.cached is None:
            return None
        cached, passage.cached = passage.cached, None
        return cached.answered(exchange, head)

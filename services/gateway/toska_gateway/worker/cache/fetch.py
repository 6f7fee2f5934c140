"""A request that the cache could not answer, on its way to the upstream, and what becomes of the response."""

from time import monotonic
from typing import TYPE_CHECKING, Final

from toska_common.clock import now_utc

from toska_gateway.worker.cache.answering import answer_with
from toska_gateway.worker.cache.asked import CONDITIONS, Asked
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.flights import Flight
from toska_gateway.worker.cache.selection import may_stand_in
from toska_gateway.worker.cache.stages import Recorder, Replacement
from toska_gateway.worker.cache.storing import Circumstances, build_entry, cookies_in, frame, updated_parts
from toska_gateway.worker.cache.vary import variant_key
from toska_gateway.worker.http1 import RequestHead, ResponseHead, drop_fields

if TYPE_CHECKING:
    from toska_gateway.worker.cache.policy import CachePolicy
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.policies import BodyStage


def copy_of(head: RequestHead) -> RequestHead:
    """A request's head whose fields can be changed without changing the other's."""
    other = head.copy()
    other.parts = list(head.parts)
    other.special = dict(head.special)
    return other


_ERRORS: Final = frozenset({500, 502, 503, 504})
"""What a stale response may stand in for (RFC 5861 §4)."""
FAILURE_S: Final = 5.0
"""How long an upstream that failed is not waited for by those who can be given something stale."""


class Fetch:
    """One such request.

    Attributes:
        why: Why it is forwarded, in the words of RFC 9211.
        asked: The request as a cache sees it.
        url: Its URL's key.
        primary: Its key, but for Vary.
        authorized: It has credentials.
        cookies: It has cookies that may matter.
        entry: What is stored for it, and is not good enough.
        flight: Others that may wait for the response.
        storable: Whether its response may be stored at all.
        in_background: No client waits for it.
    """

    __slots__ = (
        "_asked_at", "_head", "_new", "_policy", "_requested_at", "_validates", "asked", "authorized", "cookies",
        "entry", "exchange", "flight", "in_background", "mark", "primary", "storable", "url", "why",
    )  # fmt: skip

    def __init__(self, policy: "CachePolicy", exchange: "Exchange", asked: Asked, why: bytes) -> None:
        self._policy = policy
        self.exchange = exchange
        self.asked = asked
        self.why = why
        self.url = b""
        self.primary = b""
        self.mark = b""
        self.authorized = False
        self.cookies = False
        self.entry: Entry | None = None
        self.flight: Flight[Fetch] | None = None
        self.storable = False
        self.in_background = False
        self._head = exchange.head
        self._validates = False
        self._requested_at = 0.0
        self._asked_at = 0.0
        self._new: Entry | None = None

    def prepare(self) -> None:
        """Make the request one for what the cache wants: the whole, or the word that what it has is still so."""
        self._requested_at = now_utc().timestamp()
        self._asked_at = monotonic()
        entry, head = self.entry, self.exchange.head
        # What Vary names is looked up in the client's request, and that is about to become the upstream's.
        self._head = copy_of(head)
        if self.in_background:
            drop_fields(head.parts, CONDITIONS)  # the client's, who has been answered
        if entry is None or not entry.can_be_validated or head.method != b"GET":
            return
        self._validates = True
        drop_fields(head.parts, CONDITIONS)
        head.parts += entry.validators()

    # -- the response

    def answered(self, exchange: "Exchange", head: ResponseHead) -> "BodyStage | None":
        """The response's head is here: store, freshen, or put what is stored in its place."""
        status = head.status
        if status == 304 and self._validates:
            return self._still_so(exchange, head)
        entry = self.entry
        if status in _ERRORS and entry is not None:
            now = self._policy.now
            if may_stand_in(entry, self.asked.directives, now):
                return self._stand_in(exchange, head, entry, now)
        self._count("miss" if self.storable else "bypass")
        stage = self._store(head) if self.storable else None
        detail = b"; stored" if stage is not None else b""
        self._say(head, b"%b; fwd-status=%d%b" % (self.why, status, detail))
        return stage

    def _store(self, head: ResponseHead) -> "BodyStage | None":
        policy, entry = self._policy, self.entry
        reason = self._may_store(head)
        if reason is not None:
            self.why += b"; detail=" + reason.encode()
            if entry is not None and head.status not in _ERRORS and head.status != 304:
                policy.cache.forget(entry)  # the origin has something newer, which is not for us to keep
            if not self.asked.is_conditional and head.status not in _ERRORS:
                policy.cache.store.mark_uncacheable(self.mark, policy.now)
            self.land(None)
            return None
        return Recorder(self, policy.max_entry_bytes)

    def _may_store(self, head: ResponseHead) -> str | None:
        policy = self._policy
        if self.exchange.fallen:
            return "fallback"  # of another cluster, which answers only until this one is back
        length = head.body_length
        if length is None:
            return "unframed"  # its end is that of the connection, and nobody can tell if that came too early
        if length > policy.max_entry_bytes:
            return "too-large"
        built = build_entry(head.status, head.parts, self._circumstances(), policy.rules)
        if isinstance(built, str):
            return built
        self._new = built
        return None

    def _circumstances(self) -> Circumstances:
        return Circumstances(self.authorized, self.cookies, self._requested_at, now_utc().timestamp(), self._policy.now)

    def _address(self, entry: Entry) -> None:
        """Say what an entry is found under."""
        names = self._policy.cache.store.names_for(self.primary, entry.vary)
        entry.vary = names
        entry.primary = self.primary
        entry.key = variant_key(self.primary, names, self._head) if names else self.primary
        entry.url = self.url
        entry.route = self._policy.route

    def complete(self, body: bytes) -> None:
        """The response's body is whole: keep it, and give it to those who wait."""
        entry, self._new = self._new, None
        if entry is None:
            return
        self._address(entry)
        frame(entry, body)
        self._keep(entry)
        self._policy.cache.store.mark_cacheable(self.mark)
        self.land(entry)

    def _keep(self, entry: Entry) -> None:
        policy = self._policy
        # What was asked for before an event may be what the event says is out of date.
        if not policy.cache.has_ended(entry, self._asked_at):
            policy.cache.keep(entry, policy)

    def give_up(self) -> None:
        """The body is longer than what is kept."""
        self._new = None
        self._policy.cache.store.mark_uncacheable(self.mark, self._policy.now)
        self.land(None)

    def _still_so(self, exchange: "Exchange", head: ResponseHead) -> "BodyStage | None":
        """The origin says that what is stored has not changed (RFC 9111 §4.3.4)."""
        stored = self.entry
        assert stored is not None  # noqa: S101 - it is what was asked about
        policy = self._policy
        parts = updated_parts(stored, head.parts)
        cookies = cookies_in(head.parts)
        entry = build_entry(stored.status, parts, self._circumstances(), policy.rules)
        if isinstance(entry, str):
            # It is not to be kept any longer, but this client may have it.
            policy.cache.forget(stored)
            policy.cache.store.mark_uncacheable(self.mark, policy.now)
            entry = stored
            self.land(None)
        else:
            self._address(entry)
            frame(entry, stored.body)
            self._keep(entry)
            self.land(entry)
        self._count("revalidated")
        return self._put_in_place(exchange, head, entry, policy.now, cookies)

    def _stand_in(self, exchange: "Exchange", head: ResponseHead, entry: Entry, now: float) -> "BodyStage | None":
        self._count("stand_in")
        entry.failed_until = now + FAILURE_S
        self.land(entry)
        return self._put_in_place(exchange, head, entry, now, [])

    def _put_in_place(
        self, exchange: "Exchange", head: ResponseHead, entry: Entry, now: float, cookies: list[bytes]
    ) -> "BodyStage":
        member = b"%b; %b; fwd-status=%d; ttl=%d" % (self._policy.name, self.why, head.status, entry.ttl(now))
        made, body = answer_with(entry, self.asked, member, now, is_head=exchange.is_head, joined=False)
        head.status = made.status
        head.parts = made.parts + cookies
        head.special = made.special
        head.body_length = made.body_length
        return Replacement(body)

    def _say(self, head: ResponseHead, state: bytes) -> None:
        head.parts.append(b"cache-status: %b; %b\r\n" % (self._policy.name, state))

    def _count(self, outcome: str) -> None:
        if not self.in_background:
            self.exchange.route.stats.cached(outcome)

    # -- no response

    def stand_in(self, exchange: "Exchange") -> bool:
        """There is no response but an error of our own: answer with what is stored, if that may be."""
        entry, now = self.entry, self._policy.now
        if entry is None or not may_stand_in(entry, self.asked.directives, now):
            self.land(None)
            return False
        self._count("stand_in")
        entry.failed_until = now + FAILURE_S
        self.land(entry)
        member = b"%b; %b; ttl=%d; detail=unreachable" % (self._policy.name, self.why, entry.ttl(now))
        self._policy.serve(exchange, self.asked, entry, member)
        return True

    def cancel(self) -> None:
        """The request ended without a response: whoever waits for it is not at fault."""
        self._new = None
        flight, self.flight = self.flight, None
        if flight is not None:
            waiter = flight.hand_over()
            if waiter is not None:
                waiter.ticket.take_over(flight, waiter.exchange)

    def take_over(self, flight: "Flight[Fetch]", exchange: "Exchange") -> None:
        """Ask in the place of one that went away."""
        self.flight = flight
        self._policy.forward(exchange, self)

    def land(self, entry: Entry | None) -> None:
        """Those who wait for the response have waited long enough: here it is, or it will not come."""
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.land(entry)

"""Hedging: while a response is waited for, the same request goes to other endpoints; who answers first is heard.

    race:   the exchange's own attempt ──after──▶ a rival ──after──▶ another ...
                                                   │ first final response that need not be repeated
            losers are cancelled, closed  ◀────────┴──▶ the exchange takes the winner's connection over

A rival looks like an exchange to its connection. When it wins, its connection is handed to the exchange, which goes on
as if it had been its own from the start. So requests of routes without hedging pay nothing for it, and the code that
passes responses on knows nothing of races. What is cancelled is nobody's failure: neither circuit nor ejection hears
of it.
"""

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from toska_gateway.worker.caller import Caller
from toska_gateway.worker.drain import Drain
from toska_gateway.worker.endpoint import Endpoint

if TYPE_CHECKING:
    from toska_gateway.worker.attempts import Attempts
    from toska_gateway.worker.http1 import ResponseHead
    from toska_gateway.worker.upstream import Upstream


class HedgeRules:
    """A route's hedging, compiled: seconds between two attempts, and how many there are besides the first."""

    __slots__ = ("after", "attempts")

    def __init__(self, settings: dict[str, Any]) -> None:
        self.after: float = settings["after"]
        self.attempts: int = settings["attempts"]


def cancelled(endpoint: Endpoint, sent: float, now: float) -> None:
    """An attempt is given up for another's sake; a balancer by latency hears that it took so long at least.

    Else an endpoint that always loses would look as quick as it once was.
    """
    if endpoint.cluster.timed:
        endpoint.latency.observe(perf_counter() - sent, now)


class Race:
    """The rivals of one attempt of an exchange."""

    __slots__ = ("_exchange", "_left", "_rivals", "_rules", "_timer")

    def __init__(self, exchange: "Attempts", rules: HedgeRules) -> None:
        self._exchange = exchange
        self._rules = rules
        self._left = rules.attempts
        self._rivals: list[Rival] = []
        self._timer: asyncio.TimerHandle | None = exchange.plane.loop.call_later(rules.after, self._add)

    @property
    def is_on(self) -> bool:
        """Whether a rival is under way."""
        return bool(self._rivals)

    def _add(self) -> None:
        exchange, self._timer = self._exchange, None
        if not exchange.may_be_doubled:
            return
        endpoint = self._free_endpoint()
        if endpoint is None or not exchange.spend():
            return
        rival = Rival(exchange, self, endpoint)
        if not rival.is_admitted():
            return
        exchange.plane.stats.hedges += 1
        self._left -= 1
        self._rivals.append(rival)
        if self._left:
            self._timer = exchange.plane.loop.call_later(self._rules.after, self._add)
        rival.start()

    def _free_endpoint(self) -> Endpoint | None:
        """An endpoint that none of the attempts is on, and that can be asked at once."""
        exchange = self._exchange
        cluster = exchange.cluster
        taken = {exchange.endpoint, *(rival.endpoint for rival in self._rivals)}
        endpoint = cluster.pick_besides(taken, exchange.key, exchange.plane.now)
        if endpoint is None:
            return None
        # Whoever waits for a connection has a better claim to the next one than a second attempt has.
        has_room = endpoint.idle or cluster.connections < cluster.max_connections
        return endpoint if has_room and not cluster.pending else None

    def is_last(self, rival: "Rival") -> bool:
        """Whether nobody else is under way."""
        return self._rivals == [rival] and not self._exchange.is_trying

    def leave(self, rival: "Rival") -> None:
        """A rival has come to its end, or has won."""
        self._rivals.remove(rival)

    def end(self) -> None:
        """Cancel everybody who is still under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rivals, self._rivals = self._rivals, []
        for rival in rivals:
            rival.cancel()


class Rival(Caller):
    """One attempt besides the exchange's own."""

    __slots__ = ("_exchange", "_race", "_upstream", "_waiting", "endpoint", "is_head", "permit", "sent", "trace")

    def __init__(self, exchange: "Attempts", race: Race, endpoint: Endpoint) -> None:
        self.is_head = exchange.is_head
        self.trace = exchange.trace
        self.endpoint = endpoint
        self.permit = 0  # of the cluster's circuit
        self.sent = 0.0
        self._exchange = exchange
        self._race = race
        self._upstream: Upstream | None = None
        self._waiting = False

    def is_admitted(self) -> bool:
        """Whether the cluster takes one more request."""
        cluster = self._exchange.cluster
        if cluster.is_full:
            return False
        breaker = cluster.breaker
        if breaker is not None:
            self.permit = breaker.admit(self._exchange.plane.now)
        return breaker is None or self.permit != 0

    def start(self) -> None:
        """Send the request, over a connection that is there or a new one."""
        endpoint, plane = self.endpoint, self._exchange.plane
        plane.stats.attempts += 1
        self._exchange.cluster.started += 1
        endpoint.in_flight += 1
        endpoint.requests += 1
        if endpoint.idle:
            self.send_on(endpoint.idle.pop())
        else:
            self._waiting = True
            plane.connector.connect(endpoint, self)

    # -- Opener

    @property
    def connect_timeout(self) -> float:
        return self._exchange.connect_timeout

    def wants(self, endpoint: Endpoint) -> bool:
        return self._waiting

    def send_on(self, upstream: "Upstream") -> None:
        self._waiting = False
        self._upstream = upstream
        self.sent = perf_counter()
        upstream.send(self, self._exchange.whole_request())

    def connect_failed(self, endpoint: Endpoint, error: BaseException) -> None:
        if self._waiting:
            self._waiting = False
            self._fail("connect", 502, "upstream-connect-failed", f"cannot connect to {endpoint}")

    # -- Caller

    def response_head(self, head: "ResponseHead", body: bytes, *, last: bool) -> None:
        exchange, upstream = self._exchange, self._upstream
        assert upstream is not None  # noqa: S101 - whose response it is
        if head.status in exchange.route.retry.statuses and not self._race.is_last(self):
            # Somebody else may still do better.
            self._upstream = None
            exchange.plane.note(self.endpoint, head.status)
            self._leave(failed=head.status >= 500)
            self._race.leave(self)
            Drain(upstream)
            return
        self._race.leave(self)  # (else it would be cancelled with the others)
        exchange.adopt(self, upstream)
        exchange.response_head(head, body, last=last)

    def upstream_lost(self, upstream: "Upstream") -> None:
        if upstream is self._upstream:
            self._broke_off("upstream-reset", f"{self.endpoint} closed the connection before it answered")

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        upstream.close()
        self._broke_off("bad-upstream-response", reason)

    # -- how it ends

    def cancel(self) -> None:
        """Somebody else was faster, or nobody waits any more."""
        if self._upstream is not None:
            cancelled(self.endpoint, self.sent, self._exchange.plane.now)
        self._close()
        self._leave(failed=None)

    def _broke_off(self, code: str, detail: str) -> None:
        self._exchange.plane.note(self.endpoint, 0)
        self._fail("reset", 502, code, detail)

    def _fail(self, condition: str, status: int, code: str, detail: str) -> None:
        self._close()
        self._leave(failed=True)
        last = self._race.is_last(self)
        self._race.leave(self)
        if last:
            self._exchange.attempts_failed(condition, status, code, detail, sent=True)

    def _close(self) -> None:
        self._waiting = False
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def _leave(self, *, failed: bool | None) -> None:
        exchange, permit = self._exchange, self.permit
        cluster = exchange.cluster
        self.endpoint.in_flight -= 1
        cluster.finished += 1
        self.permit = 0
        if cluster.breaker is not None and permit:
            cluster.breaker.report(permit, exchange.plane.now, failed=failed)

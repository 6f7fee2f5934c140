"""A request's way past the gates of its route, and what it gathers there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toska_gateway.worker.policies import BodyStage, Cancellable, Gate, end_of, through

if TYPE_CHECKING:
    from toska_common.filters import Request

    from toska_gateway.worker.cache.fetch import Fetch
    from toska_gateway.worker.cache.policy import Change
    from toska_gateway.worker.edge.shadow import Shadow
    from toska_gateway.worker.edge.watch import Watch
    from toska_gateway.worker.exchange import Exchange


class Passage:
    """What only a request of a route with gates has.

    Attributes:
        accept_encoding: What the client asked for, whatever is sent on of it; noted for whoever compresses.
        cached: What becomes of the response, as the route's cache sees it.
        claims: Of the token that the caller showed, verified.
        ended: Whatever comes of the body goes nowhere.
        led: Its version has a cluster of its own, and it is on its way there.
        path: What the upstream is asked for instead of the request's own path; empty: that.
        shadow: The request's copy for a shadow cluster.
        filtered: The request as the route's filters see it.
        holds: Not all gates are passed: what comes of the body is held.
        showed: Whether the client sent credentials, and cookies, before filters could take them away.
        stages: What the request's body passes through; gates add to it.
        variant: What another policy chose that the response follows from, and nobody sees in the URL: a version.
        waits_for: What has to come before the gate that was entered last decides.
        watch: Who counts what comes of the request, the cluster that it counts for, and since when.
    """

    __slots__ = (
        "_gates", "_held", "accept_encoding", "cached", "claims", "ended", "filtered", "holds", "led", "path", "shadow",
        "showed", "stages", "variant", "waits_for", "watch", "watched_as", "watched_at",
    )  # fmt: skip

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.cached: Fetch | Change | None = None
        self.claims: Mapping[str, Any] | None = None
        self.accept_encoding: bytes | None = None
        self.holds = True
        self.ended = False
        self.filtered: Request | None = None
        self.led = False
        self.path = b""
        self.shadow: Shadow | None = None
        self.showed: tuple[bool, bool] = (False, False)
        self.stages: list[BodyStage] = []
        self.variant = b""
        self.waits_for: Cancellable | None = None
        self.watch: Watch | None = None
        self.watched_as = ""
        self.watched_at = 0.0
        self._gates: Iterator[Gate] = iter(gates)
        self._held: list[bytes] = []

    @property
    def resizes(self) -> bool:
        """Whether the body that goes out may be of another length than the one that comes in."""
        return any(stage.resizes for stage in self.stages)

    def go_on(self, exchange: "Exchange") -> bool:
        """Enter the gates that are left; tells whether all are passed."""
        self.waits_for = None
        return all(gate.enter(exchange, self) for gate in self._gates)

    def take(self, exchange: "Exchange", payload: bytes) -> bytes:
        """What a piece of the body becomes; nothing while it has to be held."""
        if self.ended:
            return b""
        if self.holds:
            self._held.append(payload)
            exchange.down.pause_reading()
            return b""
        return through(self.stages, payload) if self.stages else payload

    def release(self, exchange: "Exchange") -> None:
        """All gates are passed and the request is on its way: send its body after it."""
        held, self._held = self._held, []
        self.holds = False
        for payload in held:
            exchange.body(payload)
        if exchange.request_done and exchange.head.body_length and not self.ended:
            exchange.body_complete()

    def end(self) -> bytes:
        """What the stages still hold of a body that is whole."""
        stages, self.stages = self.stages, []
        return end_of(stages)

    def cancel(self) -> None:
        """The request has come to its end, whatever the gate that it waits at would say."""
        self.ended = True
        waits_for, self.waits_for = self.waits_for, None
        if waits_for is not None:
            waits_for.cancel()
        cached, self.cached = self.cached, None
        if cached is not None:
            cached.cancel()
        for stage in self.stages:
            stage.abort()
        self.stages = []

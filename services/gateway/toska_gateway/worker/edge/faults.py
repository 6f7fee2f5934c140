"""Faults on purpose: some requests wait, some fail, and the answer says that it was us (`x-toska-fault`)."""

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_DELAYED: Final = b"x-toska-fault: delay\r\n"
_ABORTED: Final = b"x-toska-fault: abort\r\n"


class Faults:
    """The faults of one route; who is hit is drawn for each request and fault by itself."""

    __slots__ = (
        "_abort_share", "_clusters", "_delay_s", "_delay_share", "_draw", "_ends_at", "_headers", "_jitter_s", "_reset",
        "_status", "_until",
    )  # fmt: skip

    def __init__(
        self, settings: dict[str, Any], route: str, plane: "Plane", draw: Callable[[], float] = random.random
    ) -> None:
        delay: dict[str, Any] = settings["delay"] or {}
        abort: dict[str, Any] = settings["abort"] or {}
        self._delay_share: float = delay.get("percent", 0.0) / 100
        self._delay_s: float = delay.get("fixed", 0.0)
        self._jitter_s: float = delay.get("jitter", 0.0)
        self._abort_share: float = abort.get("percent", 0.0) / 100
        self._status: int = abort.get("status") or 0
        self._reset: bool = abort.get("reset", False)
        self._headers = tuple((k.encode("latin-1"), v.encode("latin-1")) for k, v in settings["headers"].items())
        self._clusters = frozenset[str](settings.get("clusters") or ())
        self._until: float = settings.get("until") or float("inf")
        # By both clocks: the one on the wall may be put back, and a fault is not to last longer for that.
        self._ends_at = plane.now + (self._until - plane.wall)
        self._draw = draw

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Let the request pass unless it is hit."""
        if not self._concerns(exchange):
            return True
        draw = self._draw
        delayed = self._delay_share > 0 and draw() < self._delay_share
        aborted = self._abort_share > 0 and draw() < self._abort_share
        if delayed:
            seconds = self._delay_s + self._jitter_s * draw()
            exchange.added += _DELAYED
            # A timer, and no task: it is all there is to wait for, and the exchange cancels it if the client leaves.
            then = partial(self._after_delay, exchange, aborted)
            passage.waits_for = exchange.plane.loop.call_later(seconds, then)
            return False
        if aborted:
            self._abort(exchange)
        return not aborted

    def _concerns(self, exchange: "Exchange") -> bool:
        plane = exchange.plane
        if plane.wall >= self._until or plane.now >= self._ends_at:
            return False
        if self._clusters and exchange.cluster.name not in self._clusters:
            return False
        return all(exchange.head.field(name) == value for name, value in self._headers)

    def _after_delay(self, exchange: "Exchange", aborted: bool) -> None:
        if aborted:
            self._abort(exchange)
        else:
            exchange.pass_on()

    def _abort(self, exchange: "Exchange") -> None:
        exchange.plane.stats.faults += 1
        if self._reset:
            exchange.down.abort()
            return
        exchange.added += _ABORTED
        exchange.fail(self._status, "fault-injected", "this failure was put in on purpose")

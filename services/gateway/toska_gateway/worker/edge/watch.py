"""Counts what comes of a route's requests by the cluster they were sent to, for whoever compares clusters.

A gate, and the last one: so it counts what goes on to an upstream, and not what an earlier policy refused, answered out
of the cache or aborted on purpose. A request counts for the cluster that was chosen for it, wherever a fallback leads.
"""

from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_GONE: Final = "client-gone"


class Watch:
    """Counts under the token that the route carries."""

    __slots__ = ("_stats", "_token")

    def __init__(self, settings: str, route: str, plane: "Plane") -> None:
        self._token = settings
        self._stats = plane.stats

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Note when the request goes on, and where to."""
        passage.watch, passage.watched_as, passage.watched_at = self, exchange.cluster.name, perf_counter()
        return True

    def count(self, exchange: "Exchange", passage: "Passage", *, saved: str, blamed: bool) -> None:
        """Count the request, which is over.

        Args:
            exchange: The request.
            passage: Its own.
            saved: What alone it was answered by although the upstream failed, if so: a retry, a fallback, the cache.
            blamed: Whether it failed by the upstream's fault, whatever its status says.
        """
        # Looked up only now: what was counted so far may have been taken since the request began.
        cell = self._stats.cell(self._token, passage.watched_as)
        if exchange.error == _GONE:
            cell.gone += 1
            return
        seconds = exchange.upstream_s if exchange.tunnelled else perf_counter() - passage.watched_at
        reason = ""
        if exchange.status >= 500 or blamed:
            reason = exchange.error or (str(exchange.status) if exchange.status >= 500 else "cache")
        cell.record(seconds, reason or saved)

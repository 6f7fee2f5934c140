"""Mirroring: some requests are copied for a shadow cluster, beside their way and never in it."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from toska_gateway.worker.edge.shadow import Shadow

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane


class Mirror:
    """The mirroring of one route.

    Attributes:
        in_flight: Copies that are under way, in this worker.
        timeout_s: After so long a copy is given up.
        max_body_bytes: Longer bodies are not copied.
    """

    __slots__ = (
        "_cluster", "_draw", "_max_in_flight", "_methods", "_plane", "_share", "in_flight", "max_body_bytes",
        "timeout_s",
    )  # fmt: skip

    def __init__(
        self, settings: dict[str, Any], route: str, plane: "Plane", draw: Callable[[], float] = random.random
    ) -> None:
        self._plane = plane
        self._draw = draw
        self._cluster: str = settings["cluster"]
        self._share: float = settings["percent"] / 100
        self._methods = frozenset(method.encode() for method in settings["methods"])
        self._max_in_flight: int = settings["max_in_flight"]
        self.max_body_bytes: int = settings["max_body_bytes"]
        self.timeout_s: float = settings["timeout"]
        self.in_flight = 0

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Have the request copied, if it is one of those; in any case it goes on."""
        head = exchange.head
        if head.method not in self._methods or exchange.upgrading or self._draw() >= self._share:
            return True
        cluster = self._plane.cluster(self._cluster)
        too_long = head.body_length > self.max_body_bytes or (head.body_length and not self.max_body_bytes)
        if cluster is None or too_long or self.in_flight >= self._max_in_flight:
            self._plane.stats.mirror_skipped += 1
            return True
        passage.shadow = Shadow(self, self._plane, cluster, exchange.route, is_head=exchange.is_head)
        passage.stages.append(passage.shadow)
        return True

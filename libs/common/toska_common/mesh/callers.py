"""Who calls this app, as far as callers say: counted for the mesh's picture of itself, never trusted."""

import re

from prometheus_client import CollectorRegistry, Counter

from toska_common.contracts.discovery import MAX_CALLERS, OTHER_CALLERS

FAMILY = "toska_http_requests_by_caller"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Callers:
    """Requests by the service that sent them; callers beyond the first `MAX_CALLERS` are one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            FAMILY, "HTTP requests by the service that sent them, as it says itself", ("caller",), registry=registry
        )
        self._children: dict[str, Counter] = {}

    def count(self, caller: str) -> None:
        """A request of `caller` came in; what is no service's name is not counted."""
        child = self._children.get(caller)
        if child is None:
            if _NAME.fullmatch(caller) is None:
                return
            if len(self._children) >= MAX_CALLERS:
                caller = OTHER_CALLERS
            child = self._children[caller] = self._counter.labels(caller)
        child.inc()

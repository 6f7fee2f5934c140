"""What Envoy is told of each route, kept from one table to the next.

A change is one route among thousands. Those that are as they were, and whose clusters are, stand in the next
configuration as the same objects, and the bytes that were made of them are used again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from toska_common.contracts.routing import Route, RouteTable
from toska_common.envoy.encoding import encode, framed
from toska_common.envoy.resources import ROUTES
from toska_common.envoy.words import TYPES, Json

_ROUTE = f"{TYPES}envoy.config.route.v3.Route"
_HOST = f"{TYPES}envoy.config.route.v3.VirtualHost"
_HOSTS_OF_CONFIGURATION = 2
_ROUTES_OF_HOST = 3

Parts = Sequence[Json]


class RouteParts:
    """Of one Envoy; what is not in the newest table is forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], Parts]] = {}

    def of(self, table: RouteTable, make: Callable[[Route], Iterable[Json]]) -> list[tuple[Route, Parts]]:
        """Each route of a table with its parts; `make` is asked for those that are new, or of which something is."""
        before, self._known = self._known, {}
        found: list[tuple[Route, Parts]] = []
        for route in table.routes:
            asked = (route, table.server.limits.body_bytes, *(table.clusters.get(part.cluster) for part in route.to))
            known = before.get(route.name)
            if known is None or known[0] != asked:
                known = asked, [*make(route)]
            self._known[route.name] = known
            found.append((route, known[1]))
        return found


class RouteEncoder:
    """Encodes route configurations, of which most is as it was."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Json, bytes]] = {}

    def encode(self, configuration: Mapping[str, Any]) -> bytes:
        """A whole configuration.

        Raises:
            NotOfTheApi: It is not of the API's form.
        """
        before, self._known = self._known, {}
        hosts = [self._host(host, before) for host in configuration.get("virtual_hosts", ())]
        rest = {name: value for name, value in configuration.items() if name != "virtual_hosts"}
        return b"".join([encode(ROUTES, rest), *(framed(_HOSTS_OF_CONFIGURATION, host) for host in hosts)])

    def _host(self, host: Json, before: Mapping[int, tuple[Json, bytes]]) -> bytes:
        parts = [encode(_HOST, {name: value for name, value in host.items() if name != "routes"})]
        for route in host.get("routes", ()):
            # By identity: the one that is held here cannot be another with the same number.
            key = id(route)
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = before.get(key) or (route, framed(_ROUTES_OF_HOST, encode(_ROUTE, route)))
            parts.append(known[1])
        return b"".join(parts)

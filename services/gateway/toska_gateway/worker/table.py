"""The compiled routing table: which route takes a request, in time that does not grow with the number of routes.

Routes come in order of precedence; a route's rank is a number that grows in that order. Each stands in a bucket by
host and by path, and a lookup visits only the buckets that can hold a match (the exact path, then each prefix by
segment) and takes the lowest rank whose remaining conditions hold. So the outcome is the same as trying all routes in
order. A table is immutable once built; a new one replaces it in one assignment.
"""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.http1 import BadMessage, RequestHead, unescape_slashes
from toska_gateway.worker.paths import Buckets
from toska_gateway.worker.route import Route

if TYPE_CHECKING:
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.plane import Plane

_NO_RANK: Final = 1 << 60


class RoutingTable:
    """All routes, compiled."""

    __slots__ = ("_any", "_by_host", "_exact_hosts", "_hostless", "_wildcard_hosts", "by_name", "routes")

    def __init__(self) -> None:
        self._any = Buckets()
        self._hostless = (self._any,)
        self._by_host = False
        self._exact_hosts: dict[bytes, Buckets] = {}
        self._wildcard_hosts: dict[bytes, Buckets] = {}
        self.routes: list[Route] = []
        self.by_name: dict[str, Route] = {}

    def add(self, route: dict[str, Any], plane: "Plane") -> None:
        """Compile a route and append it: it ranks below all before it."""
        self.append(Route(len(self.routes), route, plane))

    def append(self, route: Route) -> None:
        """Take a compiled route, which ranks below all that are here."""
        self.routes.append(route)
        self.by_name[route.name] = route
        self._buckets(route.host).add(route)

    def place(self, route: Route) -> int:
        """How many routes go before one."""
        return self.routes.index(route)

    def crowd(self, routes: list[Route]) -> int:
        """How many routes stand where these do, or would."""
        return sum(self._known(route.host).crowd(route) for route in routes)

    def changed(self, gone: list[Route], come: list[Route], routes: list[Route]) -> "RoutingTable":
        """A table in which some routes are gone and others have come, so that it has these; this one stays as it is."""
        table = RoutingTable()
        table.routes = routes
        table.by_name = dict(self.by_name)
        for route in gone:
            del table.by_name[route.name]
        for route in come:
            table.by_name[route.name] = route
        table._any, table._exact_hosts, table._wildcard_hosts = self._any, self._exact_hosts, self._wildcard_hosts
        for host in {route.host for route in (*gone, *come)}:
            buckets = self._known(host).changed(
                [route for route in gone if route.host == host], [route for route in come if route.host == host]
            )
            table._put(host, buckets)
        table._hostless = (table._any,)
        table._by_host = bool(table._exact_hosts or table._wildcard_hosts)
        return table

    def _put(self, host: bytes, buckets: Buckets) -> None:
        if not host:
            self._any = buckets
        elif host.startswith(b"*."):
            self._wildcard_hosts = _with(self._wildcard_hosts, host[1:], buckets)
        else:
            self._exact_hosts = _with(self._exact_hosts, host, buckets)

    def _known(self, host: bytes) -> Buckets:
        """Those of a host, or empty ones."""
        if not host:
            return self._any
        found = self._wildcard_hosts.get(host[1:]) if host.startswith(b"*.") else self._exact_hosts.get(host)
        return Buckets() if found is None else found

    def _buckets(self, host: bytes) -> Buckets:
        if not host:
            return self._any
        self._by_host = True
        if host.startswith(b"*."):
            return self._wildcard_hosts.setdefault(host[1:], Buckets())
        return self._exact_hosts.setdefault(host, Buckets())

    def find(self, head: RequestHead, forwarding: "Forwarding") -> Route | None:
        """The route that takes a request that came on a connection, or `None`."""
        best: Route | None = None
        rank = _NO_RANK
        for buckets in self._hosts(head.host) if self._by_host else self._hostless:
            for bucket in buckets.candidates(head.path):
                for route in bucket.routes:  # in order of rank
                    if route.rank >= rank:
                        break
                    if not route.conditions or route.holds(head, forwarding):
                        best, rank = route, route.rank
                        break
                if bucket.keyed is not None:
                    found = bucket.keyed.find(head, forwarding, rank)
                    if found is not None:
                        best, rank = found, found.rank
        return best

    def require_kept_slashes(self, head: RequestHead, forwarding: "Forwarding", route: Route | None) -> None:
        """Hold a request whose path has escaped slashes to the rule: its route keeps them, and no other takes it.

        Upstreams that decode %2F would else be a way round the route that stands for the path as they read it.

        Raises:
            BadMessage: It does not hold.
        """
        if route is None or not route.keep_escaped:
            raise BadMessage(400, "bad-target", "an escaped slash or backslash is not allowed in this path")
        escaped = head.path
        head.path = unescape_slashes(escaped)
        other = self.find(head, forwarding)
        head.path = escaped
        if other is not route:
            raise BadMessage(400, "bad-target", "with its slashes decoded this path would be another route's")

    def _hosts(self, host: bytes) -> tuple[Buckets, ...] | list[Buckets]:
        if not self._by_host:
            return self._hostless
        name = bare_host(host)
        found = [self._any]
        exact = self._exact_hosts.get(name)
        if exact is not None:
            found.append(exact)
        dot = name.find(b".")
        while dot >= 0:
            wildcard = self._wildcard_hosts.get(name[dot:])
            if wildcard is not None:
                found.append(wildcard)
            dot = name.find(b".", dot + 1)
        return found

    def allowed_methods(self, head: RequestHead, forwarding: "Forwarding") -> list[bytes]:
        """The methods that would have found a route for this path; for the Allow field of a 405."""
        found: set[bytes] = set()
        for buckets in self._hosts(head.host):
            for bucket in buckets.candidates(head.path):
                bucket.collect_methods(head, forwarding, found)
        return sorted(found)


def _with(hosts: dict[bytes, Buckets], name: bytes, buckets: Buckets) -> dict[bytes, Buckets]:
    """The hosts with these buckets for one of them, which is none if they are empty."""
    found = dict(hosts)
    if buckets.empty:
        found.pop(name, None)
    else:
        found[name] = buckets
    return found


def bare_host(host: bytes) -> bytes:
    """A Host without its port and final dot, lower-case."""
    if host[:1] == b"[":
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].lower().rstrip(b".")

"""The compiled routing table: which route takes a request, in time that does not grow with the number of routes.

Routes come in order of precedence; a route's rank is a number that grows in that order. Each stands in a bucket by
host and by path, and a lookup visits only the buckets that can hold a match (the exact path, then each prefix by
segment) and takes the lowest rank whose remaining conditions hold. So the outcome is the same as trying all routes in
order. A table is immutable once built; a new one replaces it in one assignment.
"""

from typing import TYPE_CHECKING, Any, Final

from toska_common.path_templates import PathTemplate
from toska_common.regexes import Regex

from toska_gateway.worker import answers
from toska_gateway.worker.access_log import LogPolicy, quote
from toska_gateway.worker.buckets import CLIENT, COOKIE, HEADER, METHOD, QUERY, Key, network_key
from toska_gateway.worker.conditions import (
    UNIX_CLIENT,
    UNIX_NETWORK,
    Condition,
    compile_conditions,
    exact_values,
    query_of,
)
from toska_gateway.worker.edge.cors import announced_headers, preflighted_method
from toska_gateway.worker.edge.header_edits import compile_edits
from toska_gateway.worker.edge.networks import placed
from toska_gateway.worker.edge.rewriting import Redirect, compile_rewrite
from toska_gateway.worker.http1 import BadMessage, RequestHead, unescape_slashes
from toska_gateway.worker.paths import Buckets
from toska_gateway.worker.policies import CompiledPolicies
from toska_gateway.worker.rate_limit import RateLimit
from toska_gateway.worker.retries import FallbackRules, RetryRules
from toska_gateway.worker.rival import HedgeRules
from toska_gateway.worker.splits import Sticky, compile_split
from toska_gateway.worker.stats import RouteStats

if TYPE_CHECKING:
    from toska_gateway.worker.cache.hits import Hits
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.plane import Plane

CLOCK_STEP: Final = 0.1
"""Seconds between two steps of the plane's clock (`Plane.now`)."""
_NO_RANK: Final = 1 << 60


class Route:
    """One route, compiled: what a request needs to know of it."""

    __slots__ = (
        "_exact_cookies",
        "_redirect",
        "allow_websocket",
        "clusters",
        "conditions",
        "connect_timeout",
        "direct",
        "except_prefixes",
        "fallback",
        "gates",
        "headers",
        "hedge",
        "hits",
        "host",
        "idle_timeout",
        "keep_escaped",
        "keeps_body",
        "late_shapers",
        "log_policy",
        "max_body",
        "methods",
        "name",
        "networks",
        "others",
        "path",
        "path_regex",
        "prefix",
        "preflights",
        "query",
        "quoted",
        "rank",
        "rate_limit",
        "relocates",
        "request_edits",
        "response_edits",
        "response_timeout",
        "retry",
        "rewrite",
        "shapers",
        "split",
        "stats",
        "sticky",
        "strip",
        "template",
        "timeout",
        "upstream_host",
        "watched",
    )  # fmt: skip

    def __init__(self, rank: int, route: dict[str, Any], plane: "Plane") -> None:
        match, policies = route["match"], route["policies"]
        self.name: str = route["name"]
        self.rank = rank
        self.quoted = quote(self.name.encode())
        self.stats: RouteStats = plane.stats.route(self.name)
        self.methods = frozenset(method.encode() for method in match.get("methods", ()))
        headers = exact_values(match.get("headers", {}))
        self.headers = tuple((k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items())
        self.query: tuple[tuple[str, str], ...] = tuple(exact_values(match.get("query", {})).items())
        self.others: tuple[Condition, ...] = compile_conditions(match, exact=False)
        self._exact_cookies = exact_values(match.get("cookies", {}))
        self.networks: tuple[str, ...] = tuple(match.get("client_ip", ()))
        self.except_prefixes = tuple(prefix.encode() for prefix in match.get("except_prefixes", ()))
        pattern = match.get("path_regex")
        self.path_regex = None if pattern is None else Regex(pattern)
        template = match.get("path_template")
        self.template = None if template is None else PathTemplate(template)
        self.conditions = bool(
            self.methods or self.headers or self.query or self.others or self.except_prefixes or pattern
        )
        self.preflights = policies.get("cors") is not None
        self.host: bytes = (match.get("host") or "").encode()
        self.path: bytes | None = None if match.get("path") is None else match["path"].encode()
        self.prefix: bytes = (match.get("path_prefix") or "").encode()
        self.strip = len(self.prefix.rstrip(b"/")) if route.get("strip_prefix") else 0
        rewrite: dict[str, Any] = policies.get("rewrite") or {}
        versions: dict[str, Any] = policies.get("versions") or {}
        self.rewrite = compile_rewrite(rewrite, match)
        self.upstream_host: bytes = (rewrite.get("host") or "").encode()
        self.relocates = bool(self.strip or rewrite or versions.get("strip_path"))
        to = route.get("to", ())
        self.clusters: tuple[str, ...] = tuple(
            part["cluster"] for part in to if part["weight"] and not part.get("when")
        )
        self.split = compile_split(to)
        sticky = route.get("sticky")
        self.sticky = Sticky(sticky, self.split, plane) if sticky and self.split is not None else None
        redirect, respond = route.get("redirect"), route.get("respond")
        self._redirect = Redirect(redirect, match) if redirect else None
        self.direct: tuple[int, str, bytes] | None = None
        if respond:
            self.direct = respond["status"], respond["content_type"], respond["body"].encode()
        self.rate_limit: RateLimit | None = None
        self._gate(CompiledPolicies({**policies, "sticky": self.sticky}, self.name, plane))
        self._policies(policies)
        self.hits = self._find_hits()

    def _gate(self, compiled: CompiledPolicies) -> None:
        self.gates, self.shapers, self.late_shapers = compiled.gates, compiled.shapers, compiled.late_shapers
        first = self.gates[0] if len(self.gates) == 1 else None
        if isinstance(first, RateLimit):  # by far the most common one, and alone it needs no exchange to refuse
            self.rate_limit, self.gates = first, ()

    def _find_hits(self) -> "Hits | None":
        """What answers from the cache without an exchange, where nobody else has a word in what is answered."""
        alone = (
            len(self.gates) == len(self.clusters) == 1
            and self.split is None
            and not self.late_shapers
            and self.response_edits is None
        )
        made = getattr(next(iter(self.gates)), "hits", None) if alone else None
        return None if made is None else made(self.clusters[0])

    def _policies(self, policies: dict[str, Any]) -> None:
        self.connect_timeout: float = policies["connect_timeout"]
        # Deadlines are set by a clock that may be one step behind, so without the step they would pass early.
        self.timeout: float = policies["timeout"] + CLOCK_STEP if policies.get("timeout") else 0.0
        self.response_timeout: float = policies["response_timeout"] + CLOCK_STEP
        self.idle_timeout: float = policies["idle_timeout"] + CLOCK_STEP
        self._resilience(policies)
        self.max_body: int = policies["body"]["max_bytes"]
        log = policies.get("access_log")
        self.log_policy = LogPolicy(log) if log else None  # None: as the server's
        self.keep_escaped = policies["escaped_slashes"] == "keep"
        self.allow_websocket = "websocket" in policies.get("upgrade", ())
        self.request_edits = compile_edits(policies["headers"], "request")
        self.response_edits = compile_edits(policies["headers"], "response")

    def _resilience(self, policies: dict[str, Any]) -> None:
        hedge, fallback = policies["hedge"], policies["fallback"]
        self.retry = retry = RetryRules(policies["retry"])
        self.hedge = HedgeRules(hedge) if hedge else None
        self.fallback = FallbackRules(fallback) if fallback else None
        # Whether an attempt has timers of its own, or a response may not be the one that is passed on.
        self.watched = bool(
            retry.statuses or retry.try_timeout or self.hedge or (self.fallback and self.fallback.statuses)
        )
        self.keeps_body = retry.attempts > 1 or self.hedge is not None or self.fallback is not None

    def tells(self) -> list[tuple[Key, list[bytes]]]:
        """What tells the route from others exactly: kinds and names, each with the values that it takes."""
        found: list[tuple[Key, list[bytes]]] = [((HEADER, name), [value]) for name, value in self.headers]
        found += [((COOKIE, name.encode()), [value.encode()]) for name, value in self._exact_cookies.items()]
        found += [((QUERY, name.encode()), [value.encode()]) for name, value in self.query]
        if self.networks:
            keys = [
                UNIX_CLIENT if network == UNIX_NETWORK else network_key(*placed(network)) for network in self.networks
            ]
            found.append(((CLIENT, b""), keys))
        if self.methods:
            found.append(((METHOD, b""), sorted(self.methods)))
        return found

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether the conditions besides host and path hold."""
        if self.preflights and head.method == b"OPTIONS":
            announced = announced_headers(head)
            return self.takes_method(head) and self._holds_but_for_method(head, forwarding, announced)
        return (not self.methods or head.method in self.methods) and self._holds_but_for_method(head, forwarding)

    def takes_method(self, head: RequestHead) -> bool:
        """Whether the method is one of the route's; of a preflight that it answers it is the one that is asked for."""
        method = head.method
        if self.preflights:
            method = preflighted_method(head) or method
        return not self.methods or method in self.methods

    def _holds_but_for_method(
        self, head: RequestHead, forwarding: "Forwarding", announced: frozenset[bytes] = frozenset()
    ) -> bool:
        path = head.path
        if self.path_regex is not None and not self.path_regex.fits(path):
            return False
        for prefix in self.except_prefixes:
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == 0x2F):
                return False
        for name, value in self.headers:
            if head.field(name) != value and name not in announced:
                return False
        for condition in self.others:
            if not condition.holds(head, forwarding) and not condition.may_hold(announced):
                return False
        if self.query:
            given = query_of(head)
            return all(value in given.get(key, ()) for key, value in self.query)
        return True

    def methods_if_elsewhere(self, head: RequestHead, forwarding: "Forwarding") -> frozenset[bytes]:
        """The methods this route would take, if only the method stands against it."""
        return self.methods if self._holds_but_for_method(head, forwarding) else frozenset()

    def answer_directly(
        self, head: RequestHead, forwarding: "Forwarding", *, close: bool, extra: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and wire bytes of a redirect or fixed response.

        Args:
            head: The request's.
            forwarding: Of the connection that it came on.
            close: The connection closes after it.
            extra: Further field lines.

        Raises:
            BadMessage: The client cannot be sent where the route says.
        """
        bodiless = head.method == b"HEAD"
        if self._redirect is not None:
            status = self._redirect.status
            extra += b"location: " + self._redirect.location(head, forwarding) + b"\r\n"
            return status, answers.build(status, "text/plain; charset=utf-8", b"", close=close, extra=extra)
        assert self.direct is not None  # noqa: S101 - the contract: to, redirect or respond
        status, content_type, body = self.direct
        return status, answers.build(status, content_type, body, close=close, bodiless=bodiless, extra=extra)


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

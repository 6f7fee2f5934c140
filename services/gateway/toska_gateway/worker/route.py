"""One route, compiled: what a request that it takes needs to know, looked up and converted once."""

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
from toska_gateway.worker.http1 import RequestHead
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

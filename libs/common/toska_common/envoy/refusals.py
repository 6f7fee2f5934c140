"""What Envoy cannot do as the contract says, named with its place and the reason.

Every field of the contract stands in `FIELDS`: translated (`None`), or with the reason for which anything but its
default is refused, or with a function that looks at its value. A field that does not stand there is refused, too: what
the contract has learned is never passed over.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from operator import is_
from typing import Any, Final, cast

from pydantic import BaseModel

from toska_common.contracts import routing, tls
from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing import RouteTable
from toska_common.envoy import compression, failovers
from toska_common.envoy.routes import hash_key
from toska_common.placeholders import split_placeholders
from toska_common.routing.problems import Finding, Location

Look = Callable[[Any], str | None]
Rule = None | str | Look
_MOST_BYTES: Final = 2**32 - 1
_UNKNOWN: Final = "the Envoy engine does not know this yet"


def _all(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names)


def _path(value: str | None) -> str | None:
    return "Envoy does not route an OPTIONS of the server as a whole" if value == "*" else None


def _rates(limit: Any) -> str | None:
    milliseconds = limit.total_seconds() * 1000
    return "Envoy fills an allowance every 50 ms at the fastest" if milliseconds < 50 else None


def _networks(value: tuple[str, ...]) -> str | None:
    return "Envoy knows clients by address only, and none by Unix socket" if UNIX_PREFIX in value else None


def _types(value: tuple[str, ...]) -> str | None:
    wrong = compression.untranslatable(value)
    return f"Envoy compares types as a whole, and cannot take {wrong[0]}" if wrong else None


def _to(value: str | None) -> str | None:
    return "Envoy does not join a query of the redirect with the request's" if value and "?" in value else None


def _query(value: Mapping[str, Any]) -> str | None:
    if "" in value:
        return "Envoy knows no query parameter without a name"
    inverted = any(one.invert and one.regex is not None for one in value.values())
    return "Envoy does not invert an expression for a query parameter" if inverted else None


def _body_bytes(value: int) -> str | None:
    return f"Envoy counts no further than {_MOST_BYTES} bytes" if value > _MOST_BYTES else None


def _zone(value: str) -> str | None:
    return (
        "Envoy is told which endpoints are near before it knows where it runs: name the zone"
        if value == "local"
        else None
    )


def _balancer(value: str) -> str | None:
    return "Envoy has no balancer by latency; take least_request" if value == "peak_ewma" else None


FIELDS: Final[Mapping[type[BaseModel], Mapping[str, Rule]]] = {
    routing.Server: {
        **_all("trusted_proxies", "limits", "tls", "proxy_protocol", "access_log", "tracing"),
        "cache": "Envoy keeps no responses here",
    },
    routing.ServerLimits: {
        "body_bytes": _body_bytes,
        **_all("header_bytes", "headers", "header_timeout", "body_timeout", "idle_timeout",
               "handshake_timeout", "connections"),
        "target_bytes": "Envoy bounds a request's head as a whole: header_bytes",
        "connections_per_client": "Envoy does not count connections by client",
    },
    routing.ProxyProtocol: _all("trusted_peers"),
    routing.AccessLog: _all("path", "sample", "errors_always", "query"),
    routing.Tracing: {
        **_all("endpoint", "sample", "headers", "service_name"),
        "header_files": "Envoy reads no header from a file",
    },
    tls.ServerTls: {
        **_all("certificate", "key", "certificates", "min_version", "client"),
        "unknown_names": "Envoy shows the first certificate to clients that ask for another name",
    },
    tls.CertificatePair: {
        **_all("certificate", "key"),
        "names": "Envoy shows a certificate for the names that it is made out for",
    },
    tls.ClientCertificates: _all("ca", "mode"),
    tls.ClusterTls: _all("ca", "certificate", "key", "server_name", "min_version", "insecure"),
    routing.Cluster: {
        **_all("service", "endpoints", "hash_key", "affinity", "slow_start", "panic_percent", "protocol", "limits",
               "outlier", "health_check", "keep_alive", "tls", "failover"),
        "zone": _zone,
        "zone_min_endpoints": "Envoy goes by the share of the zone's endpoints that are well, and not by their number",
        "balancer": _balancer,
        "breaker": "Envoy has no circuit that opens by a share of failures; outlier.consecutive_5xx ejects endpoints",
    },
    routing.Failover: _all("to", "below_percent", "min_endpoints"),
    routing.Endpoint: _all("id", "address", "port", "weight", "zone"),
    routing.HashKey: _all("header", "cookie", "query", "path", "client_ip"),
    routing.AffinityCookie: _all("cookie", "ttl", "secure"),
    routing.ConnectionLimits: {
        **_all("max_connections", "max_pending", "max_requests"),
        "pending_timeout": "in Envoy a request waits for a connection as long as for its response",
    },
    routing.Outlier: _all("consecutive_failures", "consecutive_gateway_errors", "consecutive_5xx", "base_ejection",
                          "max_ejection", "max_ejected_percent"),
    routing.HealthCheck: _all("path", "host", "interval", "timeout", "rise", "fall", "expect"),
    routing.Route: _all("name", "priority", "policies_from", "match", "to", "sticky", "redirect", "respond",
                        "strip_prefix", "policies"),
    routing.Sticky: _all("set_cookie", "ttl", "secure", "header", "cookie", "claim", "client_ip"),
    routing.Match: {
        **_all("host", "path_prefix", "path_template", "path_regex", "except_prefixes", "methods", "headers",
               "cookies"),
        "path": _path,
        "query": _query,
        "client_ip": _networks,
    },
    routing.Conditions: {
        **_all("headers", "cookies"),
        "query": _query,
        "client_ip": _networks,
    },
    routing.ValueMatch: _all("exact", "prefix", "suffix", "contains", "regex", "present", "invert"),
    routing.WeightedCluster: _all("cluster", "weight", "when"),
    routing.Redirect: {**_all("prefix", "scheme", "host", "keep_query", "status"), "to": _to},
    routing.Respond: _all("status", "body", "content_type"),
    routing.Policies: {
        **_all("timeout", "connect_timeout", "response_timeout", "idle_timeout", "retry", "ip", "require_https", "cors",
               "security_headers", "auth", "rate_limit", "fault", "mirror", "rewrite", "headers", "body", "compress",
               "upgrade", "fallback", "watch", "hedge"),
        "versions": "Envoy does not know versions of an API; match on the header or the path",
        "access_log": "Envoy writes one access log for all routes alike: server.access_log",
        "cache": "Envoy keeps no responses here",
        "filters": "Envoy runs no Python",
        "escaped_slashes": "Envoy does not ask whose route a path would be with its slashes decoded: they are refused",
    },
    routing.RetryPolicy: {
        **_all("attempts", "per_try_timeout", "backoff", "budget", "budget_floor", "idempotency_key", "replay_bytes",
               "max_retry_after", "retry_on"),
    },
    routing.Fallback: _all("cluster", "respond", "on"),
    routing.Hedge: _all("after", "attempts"),
    routing.Backoff: _all("base", "max"),
    routing.IpRules: {"allow": _networks, "deny": _networks},
    routing.RequireHttps: _all("otherwise", "port"),
    routing.Cors: _all("allow_origins", "allow_methods", "allow_headers", "expose_headers", "allow_credentials",
                       "allow_private_network", "max_age"),
    routing.SecurityHeaders: _all(
        "hsts", "content_type_options", "frame_options", "referrer_policy", "permissions_policy",
        "content_security_policy", "content_security_policy_report_only", "cross_origin_opener_policy",
        "cross_origin_embedder_policy", "cross_origin_resource_policy", "override",
    ),
    routing.Hsts: _all("max_age", "include_subdomains", "preload"),
    routing.Auth: _all("jwt", "scopes", "roles", "optional"),
    routing.Jwt: {
        **_all("issuer", "audience", "jwks_url", "jwks_file", "jwks", "jwks_ca", "jwks_refresh", "jwks_allow_http",
               "algorithms", "type", "clock_skew", "required_claims", "token_from", "roles_claim", "forward",
               "forward_token"),
        "max_token_bytes": "Envoy bounds a request's head as a whole: server.limits.header_bytes",
    },
    routing.TokenPlace: _all("header", "cookie"),
    routing.RateLimit: {
        **_all("requests", "burst", "key"),
        "per": _rates,
        "scope": "Envoy counts for itself alone, all its threads together: that is machine",
    },
    routing.Fault: _all("delay", "abort", "headers", "clusters", "until"),
    routing.Delay: {**_all("fixed", "percent"), "jitter": "Envoy delays by a fixed time"},
    routing.Abort: {**_all("status", "percent"), "reset": "Envoy answers with a status, and resets nothing"},
    routing.Mirror: {
        **_all("cluster", "percent", "methods"),
        "max_body_bytes": "Envoy copies requests whatever their length",
        "max_in_flight": "Envoy bounds copies by the limits of their cluster",
        "timeout": "a copy has the time of its request in Envoy",
    },
    routing.Rewrite: _all("prefix", "regex", "replacement", "host"),
    routing.HeaderRules: _all("request", "response"),
    routing.HeaderEdits: _all("set", "add", "remove"),
    routing.BodyLimit: {"max_bytes": _body_bytes},
    routing.Compression: {**_all("algorithms", "min_bytes", "levels"), "content_types": _types},
    routing.CompressionLevels: _all("br", "zstd", "gzip"),
}  # fmt: skip


class Judged:
    """Routes against which there was nothing, with the clusters that they led to: those are not judged again."""

    def __init__(self) -> None:
        self._fine: dict[str, tuple[Any, ...]] = {}

    def passes(self, route: routing.Route, table: RouteTable) -> bool:
        """Whether there was nothing against a route."""
        known, now = self._fine.get(route.name), _judged_by(route, table)
        return known is not None and len(known) == len(now) and all(map(is_, known, now))

    def note(self, routes: Iterable[routing.Route], table: RouteTable) -> None:
        """There is nothing against these, and no others are remembered."""
        self._fine = {route.name: _judged_by(route, table) for route in routes}


def _judged_by(route: routing.Route, table: RouteTable) -> tuple[Any, ...]:
    return (route, *(table.clusters.get(part.cluster) for part in route.to))


def find_refusals(table: RouteTable, judged: Judged | None = None) -> list[Finding]:
    """Everything of a table that an Envoy cannot serve as the contract says; reasons begin with the route's name.

    `judged` is for whoever looks through one table after the other.
    """
    findings = [*_inside(table.server, ("server",))]
    for name, cluster in table.clusters.items():
        findings += _inside(cluster, ("clusters", name))
    fine: list[routing.Route] = []
    for index, route in enumerate(table.routes):
        if judged is not None and judged.passes(route, table):
            fine.append(route)
            continue
        before = len(findings)
        at: Location = ("routes", index)
        named = f'route "{route.name}": '
        findings += (Finding(one.location, named + one.reason) for one in _inside(route, at))
        findings += (Finding(one.location, named + one.reason) for one in _as_a_whole(route, table, at))
        if len(findings) == before:
            fine.append(route)
    if judged is not None:
        judged.note(fine, table)
    findings += (
        Finding(
            ("clusters", name), f"Envoy has one rule for what a cluster carries, and {first} wants another than {then}"
        )
        for name, first, then in failovers.disagreements(table)
    )
    return [*findings, *_agreements(table)]


def _inside(model: BaseModel, at: Location) -> Iterator[Finding]:
    rules = FIELDS.get(type(model), {})
    for name, default in _defaults(type(model)):
        value: Any = getattr(model, name)
        if value is default or value == default:
            continue
        here = (*at, name)
        rule = rules.get(name, _UNKNOWN)
        reason = rule(value) if callable(rule) else rule
        if reason is not None:
            yield Finding(here, reason)
        else:
            yield from _members(value, here)


@cache
def _defaults(kind: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, field.get_default(call_default_factory=True)) for name, field in kind.model_fields.items())


def _members(value: Any, at: Location) -> Iterator[Finding]:
    if isinstance(value, BaseModel):
        yield from _inside(value, at)
    elif isinstance(value, tuple):
        for index, member in enumerate(cast("tuple[Any, ...]", value)):
            yield from _members(member, (*at, index))
    elif isinstance(value, Mapping):
        for key, member in cast("Mapping[str, Any]", value).items():
            yield from _members(member, (*at, key))


def _as_a_whole(route: routing.Route, table: RouteTable, at: Location) -> Iterator[Finding]:
    rewritten = route.strip_prefix or route.policies.rewrite is not None
    if rewritten and _names_path(route.policies.headers.response):
        reason = "of a path that is rewritten Envoy knows only what it has become, once there is an answer"
        yield Finding((*at, "policies", "headers", "response"), reason)
    clusters = [table.clusters[part.cluster] for part in route.to if part.cluster in table.clusters]
    if any(cluster.affinity != clusters[0].affinity for cluster in clusters):
        yield Finding((*at, "to"), "the clusters of a split have one affinity cookie in Envoy, or none")
    fallback = route.policies.fallback
    if fallback is not None and fallback.cluster is not None:
        if any(cluster.failover is not None or cluster.zone for cluster in clusters):
            yield Finding(
                (*at, "policies", "fallback"), "in Envoy a cluster with failover or zone has no fallback besides"
            )
        if "overloaded" in fallback.on and fallback.on != routing.Fallback.model_fields["on"].default:
            yield Finding((*at, "policies", "fallback", "on"), "Envoy tries nothing again that a limit refuses")
    if route.policies.hedge is not None and route.policies.retry.per_try_timeout is not None:
        yield Finding((*at, "policies", "hedge"), "in Envoy the time of a try is when the next one begins: give one")
    hashed = [key for cluster in clusters if (key := hash_key(cluster))]
    if any(key != hashed[0] for key in hashed):
        yield Finding((*at, "to"), "the clusters of a split have one hash key in Envoy")


def _reached(route: routing.Route, table: RouteTable) -> Iterator[str]:
    for part in route.to:
        chain = failovers.find_chain(part.cluster, route, table)
        yield from [part.cluster] if chain is None else chain.members


def _names_path(edits: routing.HeaderEdits) -> bool:
    values = (*edits.set.values(), *edits.add.values())
    return any(word == "path" for value in values for _, word in split_placeholders(value))


def _agreements(table: RouteTable) -> Iterator[Finding]:
    """What Envoy has once for a cluster, and the contract for each route that leads there."""
    said: dict[str, tuple[str, Any, Any]] = {}
    for index, route in enumerate(table.routes):
        for cluster in _reached(route, table):
            retry = route.policies.retry
            wanted = route.policies.connect_timeout, (retry.budget, retry.budget_floor)
            name, timeout, budget = said.setdefault(cluster, (route.name, *wanted))
            at: Location = ("routes", index, "policies")
            other = f'route "{route.name}": Envoy has one for a cluster, and "{name}" says otherwise for {cluster}'
            if timeout != wanted[0]:
                yield Finding((*at, "connect_timeout"), other)
            if budget != wanted[1]:
                yield Finding((*at, "retry", "budget"), other)

"""Routes as Envoy's route configuration.

One route of ours can become several of Envoy's, one after the other: what is retried or copied depends on the method
here, and on the route there. What no method of a path takes, and what has to come over HTTPS, gets routes that answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Final

from toska_common.contracts.routing import Cluster, Fallback, Route, RouteTable, WeightedCluster
from toska_common.contracts.routing.policies import HeaderEdits
from toska_common.envoy import clients, cors, credentials, failovers, faults, filters, headers, mirrors, retries, splits
from toska_common.envoy.matching import domain, hosts_of, match_of, patterns_of
from toska_common.envoy.options import Options
from toska_common.envoy.paths import redirect, rewriting
from toska_common.envoy.replies import problem_route
from toska_common.envoy.route_parts import RouteParts
from toska_common.envoy.telling import watch_metadata
from toska_common.envoy.variants import Variant, variants
from toska_common.envoy.words import Json, exactly, fitting, header, literal

_Made = tuple[int, Route | None, Sequence[Json]]
"""A route's place in the table, the route itself if its methods matter, and its parts."""
_MAX_ANSWER_BYTES: Final = 4 * 65536
_BODILESS: Final = (204, 304)
_BROKEN_ESCAPE: Final = fitting(":path", "[^?]*%(?:[[:xdigit:]]?|[[:xdigit:]]?[^[:xdigit:]].*)")
_HTTPS: Final = exactly("x-forwarded-proto", "https")
_NOT_HTTPS: Final = exactly("x-forwarded-proto", "https", invert=True)


def route_configuration(
    table: RouteTable, options: Options, name: str, known: RouteParts | None = None, filter_chain: Sequence[Json] = ()
) -> Json:
    """All routes, in their order, by host; `known` are those of the table before, and `filter_chain` is of HTTP."""
    made = (known or RouteParts()).of(table, lambda route: _routes(route, table, options))
    by_pattern: dict[str | None, list[_Made]] = {}
    for place, (route, parts) in enumerate(made):
        by_pattern.setdefault(route.match.host, []).append((place, route if _has_methods(route) else None, parts))
    alternatives = [f'h3=":{one.port}"; ma=86400' for one in options.listeners if one.http3 and table.server.tls]
    return {
        "name": name,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": _MAX_ANSWER_BYTES,
        "request_headers_to_add": headers.forwarding(options.pseudonym),
        "request_headers_to_remove": ["x-envoy-external-address"],
        **_switched_off(table, filter_chain),
        **({"response_headers_to_add": [header("alt-svc", ", ".join(alternatives))]} if alternatives else {}),
        "virtual_hosts": [_virtual_host(host, by_pattern) for host in hosts_of(table.routes)],
    }


def _switched_off(table: RouteTable, filter_chain: Sequence[Json]) -> Json:
    off = clients.switched_off(filter_chain) if clients.is_told(table) else {}
    return {"typed_per_filter_config": off} if off else {}


def _virtual_host(host: str | None, by_pattern: Mapping[str | None, Sequence[_Made]]) -> Json:
    here = sorted(chain.from_iterable(by_pattern.get(one, ()) for one in patterns_of(host)), key=itemgetter(0))
    return {
        "name": domain(host),
        "domains": [domain(host)],
        "routes": [
            *(_two_hosts() if host is None or host.startswith("*") else ()),
            _refusing("", {"prefix": "/", "headers": [_BROKEN_ESCAPE]}),
            *chain.from_iterable([parts for _, _, parts in here]),
            *_other_methods([route for _, route, _ in here if route is not None]),
        ],
    }


def _refusing(name: str, match: Json) -> Json:
    return {"name": problem_route(name, "bad-target"), "match": match, "direct_response": {"status": 400}}


def _two_hosts() -> Iterator[Json]:
    """Envoy joins several Host fields with a comma, which no host has."""
    matcher = {"name": ":authority", "string_match": {"contains": ","}}
    yield {
        "name": problem_route("", "bad-host"),
        "match": {"prefix": "/", "headers": [matcher]},
        "direct_response": {"status": 400},
    }


def _routes(route: Route, table: RouteTable, options: Options) -> Iterator[Json]:
    if route.policies.cors is not None:
        yield from cors.preflights(route)
    secure = route.policies.require_https
    if secure is not None:
        yield _insecure(route, port=secure.port, refuse=secure.otherwise == "refuse")
    secure_headers = route.policies.security_headers
    for part in [*(part for part in route.to if part.when is not None), None]:
        for variant in variants(route):
            if secure_headers is not None and secure_headers.hsts is not None:
                yield _one(route, part, variant, table, options, over_tls=True)
            yield _one(route, part, variant, table, options, over_tls=False)


def _one(
    route: Route,
    part: WeightedCluster | None,
    variant: Variant,
    table: RouteTable,
    options: Options,
    *,
    over_tls: bool,
) -> Json:
    """One route of Envoy's: for requests of which the condition of a split's `part` holds, or for all that are left."""
    conditions = [*variant.headers, *([_HTTPS] if over_tls else [])]
    when = part.when if part is not None else None
    made: Json = {
        "name": route.name,
        "match": match_of(route.match, methods=variant.methods, headers=conditions, when=when),
        **_action(route, part, variant, table),
    }
    if replayed := route.policies.retry.replay_bytes if route.to else 0:
        made["request_body_buffer_limit"] = str(replayed)
    secret = () if credentials.is_own(route) else (headers.OF_THE_MESH,)
    if splits.find_sticky(route):
        secret = (*secret, splits.PART)
    _edit(made, "request", route.policies.headers.request, route.name, headers.prefix_told(route), secret)
    dropped = cors.OF_UPSTREAMS if route.policies.cors is not None else ()
    _edit(made, "response", route.policies.headers.response, route.name, _answered(route, over_tls=over_tls), dropped)
    metadata = credentials.own_metadata() if credentials.is_own(route) else {}
    if route.policies.watch is not None:
        metadata |= watch_metadata(route.policies.watch, hedged=route.policies.hedge is not None)
    if metadata:
        made["metadata"] = {"filter_metadata": metadata}
    chosen = filters.of_route(route, table, options) | _fault(route, part, table)
    if part is None and (sticky := splits.find_sticky(route)) is not None:
        chosen[splits.NAME] = splits.of_route(route, sticky, table)
    if chosen:
        made["typed_per_filter_config"] = chosen
    return made


def _answered(route: Route, *, over_tls: bool) -> list[Json]:
    added: list[Json] = []
    secure = route.policies.security_headers
    if secure is not None:
        added += headers.security(secure)
        if over_tls and secure.hsts is not None:
            added.append(headers.strict_transport(secure.hsts, override=secure.override))
    if route.respond is not None:
        added.append(header("content-type", literal(route.respond.content_type)))
    return added


def _edit(made: Json, side: str, rules: HeaderEdits, name: str, own: list[Json], dropped: Iterable[str] = ()) -> None:
    added, removed = headers.edits(rules, name)
    if own or added:
        made[f"{side}_headers_to_add"] = [*own, *added]
    if dropped or removed:
        made[f"{side}_headers_to_remove"] = [*dropped, *removed]


def _action(route: Route, part: WeightedCluster | None, variant: Variant, table: RouteTable) -> Json:
    if route.respond is not None:
        answer: Json = {"status": route.respond.status}
        if route.respond.body and route.respond.status not in _BODILESS:
            answer["body"] = {"inline_string": route.respond.body}
        return {"direct_response": answer}
    if route.redirect is not None:
        return {"redirect": redirect(route.match, route.redirect)}
    action: Json = {
        **(
            {"cluster": failovers.led_to(part.cluster, route, table)}
            if part is not None
            else _destination(route, table)
        ),
        **retries.timeouts(route.policies),
        **rewriting(route),
        **retries.hedge_policy(route.policies, idempotent=variant.idempotent),
        "retry_policy": {
            **retries.retry_policy(route.policies, idempotent=variant.idempotent, fallback=_falls_back(route, table)),
            **failovers.elsewhere(route, table),
        },
    }
    if hashed := _hash_policy(route, table):
        action["hash_policy"] = hashed
    if variant.mirrored and route.policies.mirror is not None:
        action["request_mirror_policies"] = [mirrors.mirror_policy(route.policies.mirror)]
    action["upgrade_configs"] = [{"upgrade_type": "websocket", "enabled": "websocket" in route.policies.upgrade}]
    return {"route": action}


def _shared(route: Route) -> list[WeightedCluster]:
    """The parts of a split that go by weight."""
    return [part for part in route.to if part.weight and part.when is None]


def _fault(route: Route, part: WeightedCluster | None, table: RouteTable) -> Json:
    """The fault of a route, where it hits all that take it; that of one part of several stands with the part."""
    policy = route.policies.fault
    if policy is None:
        return {}
    reached = [part] if part is not None else _shared(route)
    hit = [one.cluster for one in reached if faults.hits(route, one.cluster)]
    if len(hit) == len(reached):
        return {faults.NAME: faults.fault(policy)}
    if part is None and hit and splits.find_sticky(route):
        named = [failovers.led_to(name, route, table) for name in hit]
        return {faults.NAME: faults.fault(policy, (splits.PART, named))}
    return {}


def _falls_back(route: Route, table: RouteTable) -> Fallback | None:
    """The fallback, where it is another cluster."""
    falls = any(map(failovers.is_fallback, failovers.chains_for(route, table)))
    return route.policies.fallback if falls else None


def _destination(route: Route, table: RouteTable) -> Json:
    if splits.find_sticky(route):
        return {"cluster_header": splits.PART}
    present = _shared(route)
    if len(present) == 1:
        return {"cluster": failovers.led_to(present[0].cluster, route, table)}
    hit = [faults.hits(route, part.cluster) for part in present]
    shares: list[Json] = []
    for part, is_hit in zip(present, hit, strict=True):
        share: Json = {"name": failovers.led_to(part.cluster, route, table), "weight": part.weight}
        if is_hit and not all(hit) and route.policies.fault is not None:
            share["typed_per_filter_config"] = {faults.NAME: faults.fault(route.policies.fault)}
        shares.append(share)
    return {"weighted_clusters": {"clusters": shares}}


def _hash_policy(route: Route, table: RouteTable) -> list[Json]:
    """By what endpoints follow from requests; those of the first cluster of a split stand for all (see refusals)."""
    for part in route.to:
        cluster = table.clusters.get(part.cluster)
        if cluster is not None and (key := hash_key(cluster)):
            return [key]
    return []


def hash_key(cluster: Cluster) -> Json:
    """What a cluster's balancer goes by, if it goes by anything."""
    if cluster.balancer == "ip_hash":
        return {"connection_properties": {"source_ip": True}}
    key = cluster.hash_key
    if key is None:
        return {}
    if key.header is not None:
        return {"header": {"header_name": key.header}}
    if key.cookie is not None:
        return {"cookie": {"name": key.cookie}}
    if key.query is not None:
        return {"query_parameter": {"name": key.query}}
    if key.client_ip:
        return {"connection_properties": {"source_ip": True}}
    rewrite = {"pattern": {"regex": r"([^?]*).*"}, "substitution": r"\1"}
    return {"header": {"header_name": ":path", "regex_rewrite": rewrite}}


def _insecure(route: Route, *, port: int, refuse: bool) -> Json:
    match = match_of(route.match, methods=route.match.methods, headers=[_NOT_HTTPS])
    if refuse:
        return {"name": problem_route(route.name, "https-only"), "match": match, "direct_response": {"status": 403}}
    there: Json = {"scheme_redirect": "https", "port_redirect": port, "response_code": "PERMANENT_REDIRECT"}
    return {"name": route.name, "match": match, "redirect": there}


def _has_methods(route: Route) -> bool:
    """Whether a route leaves a path's other methods to be refused: what it asks besides, others may not ask."""
    return bool(route.match.methods) and not route.match.values and not route.match.client_ip


def _other_methods(routes: Sequence[Route]) -> Iterator[Json]:
    """What answers on paths that take other methods: after every route, for it takes all that is left of them."""
    taken: dict[tuple[str | None, ...], list[Route]] = {}
    for route in routes:
        match = route.match
        taken.setdefault((match.path, match.path_prefix, match.path_template, match.path_regex), []).append(route)
    for members in taken.values():
        methods = {method for route in members for method in route.match.methods}
        name = problem_route(members[0].name, "method-not-allowed")
        yield {
            "name": name,
            "match": match_of(members[0].match),
            "direct_response": {"status": 405},
            "response_headers_to_add": [headers.allowed(methods)],
        }

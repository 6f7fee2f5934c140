"""What can only be seen with a whole routing table in view: names that lead nowhere, and routes in each other's way.

Pure; every finding is located from the root of a routing document (`routes[3].to[0].cluster`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import chain

from toska_common.contracts.names import RESERVED_PREFIX, is_unix
from toska_common.contracts.routing import Cluster, Match, Policies, Route, RoutingDocument
from toska_common.routing.neighbours import Owner, neighbours_of, place_of
from toska_common.routing.order import AUTOMATIC_PREFIX, is_automatic, match_identity
from toska_common.routing.policy_checks import check_policies
from toska_common.routing.problems import Finding, Location, suggestion
from toska_common.targets import TargetRules

_OWN_PREFIXES = (AUTOMATIC_PREFIX, "toska:")
_TARGETS = TargetRules()
_NOTHING = RoutingDocument()


def check_document(
    routes: Sequence[Route | None],
    clusters: Mapping[str, Cluster],
    *,
    policies: Mapping[str, Policies] | None = None,
    known_clusters: Collection[str] | None = None,
    known_policies: Collection[str] | None = None,
    beside: RoutingDocument = _NOTHING,
    registry: bool = True,
    by_hand: bool = True,
) -> list[Finding]:
    """Find everything wrong with operators' routes and clusters as a whole.

    Args:
        routes: In the order of writing; `None` keeps the place of one that could not be read.
        clusters: Those that could be read.
        policies: Those that could be read; `None` if the routes have theirs merged already, as those of a snapshot.
        known_clusters: Names that routes may lead to besides those of `beside`; default: `clusters`.
        known_policies: Names that routes may refer to, likewise; default: `policies`.
        beside: What stands beside them in the same table, from another source; right by itself until now.
        registry: Whether there is a registry that clusters can follow.
        by_hand: Whether this is what people have written, rather than what a router has made of it.
    """
    known = {*(clusters if known_clusters is None else known_clusters), *beside.clusters}
    findings = [finding for name, cluster in clusters.items() for finding in _check_cluster(name, cluster, registry)]
    findings += [finding for name, cluster in clusters.items() for finding in _check_failover(name, cluster, known)]
    for index, route in enumerate(routes):
        if route is not None:
            findings.extend(_check_route(("routes", index), route, known))
            if by_hand and route.policies.watch is not None:
                reason = "is set by rollouts and experiments alone"
                findings.append(Finding(("routes", index, "policies", "watch"), reason))
    findings.extend(_conflicts(routes, beside.routes))
    findings.extend(_left_behind(beside, known))
    if policies is not None:
        names = policies if known_policies is None else known_policies
        findings.extend(check_policies(routes, policies, known=names, known_clusters=known, beside=beside))
    findings.extend(
        Finding(("clusters", name), "another source has a cluster of this name")
        for name in clusters
        if name in beside.clusters
    )
    return findings


def is_right_among(
    routes: Sequence[Route], clusters: Mapping[str, Cluster], owners: Sequence[Owner], known: Collection[str]
) -> bool:
    """Whether these are as right as `check_document` wants them, in time that depends on them alone.

    Args:
        routes: Those that are new or have changed.
        clusters: Likewise.
        owners: What all routes of the table are in, these included; the others were right until now, and nothing that
            they refer to is gone.
        known: Names of all clusters.
    """
    for name, cluster in clusters.items():
        if any(_check_cluster(name, cluster, registry=True)) or any(_check_failover(name, cluster, known)):
            return False
    for route in routes:
        if any(_check_route((), route, known)):
            return False
        for owner in owners:
            others = neighbours_of(owner).get(place_of(route.match), ())
            if any(one is not route and _collide(one, route) for one in others):
                return False
    return True


def is_needed(
    lost: Collection[str],
    routes: Iterable[Route],
    clusters: Mapping[str, Cluster],
    policies: Mapping[str, Policies] | None = None,
) -> bool:
    """Whether anybody still leads to one of these clusters."""
    named = (name for one in (*routes, *(policies or {}).values()) for _, name in one.named_clusters())
    taking_over = (name for one in clusters.values() if one.failover is not None for name in one.failover.to)
    return any(name in lost for name in chain(named, taking_over))


def _collide(one: Route, other: Route) -> bool:
    own = not is_automatic(one) and not is_automatic(other)
    return own and match_identity(one.match) == match_identity(other.match)


def _check_cluster(name: str, cluster: Cluster, registry: bool) -> Iterator[Finding]:
    if name.startswith(RESERVED_PREFIX):
        yield Finding(("clusters", name), f"names that begin with {RESERVED_PREFIX} are the mesh's own")
    if cluster.service is not None and not registry:
        yield Finding(("clusters", name, "service"), "there is no registry to follow here; list endpoints")
    for index, endpoint in enumerate(cluster.endpoints):
        if _is_address(endpoint.address):
            refusal = _TARGETS.refusal(endpoint.address, endpoint.port)
            if refusal is not None:
                yield Finding(
                    ("clusters", name, "endpoints", index, "address"), f"the mesh does not go there: {refusal}"
                )
    yield from _check_tls(name, cluster)


def _check_failover(name: str, cluster: Cluster, known: Collection[str]) -> Iterator[Finding]:
    for index, other in enumerate(cluster.failover.to if cluster.failover is not None else ()):
        at = ("clusters", name, "failover", "to", index)
        if other == name:
            yield Finding(at, "it is the cluster itself")
        elif other not in known:
            yield Finding(at, f'there is no cluster "{other}"{suggestion(other, known)}')


def _check_tls(name: str, cluster: Cluster) -> Iterator[Finding]:
    tls = cluster.tls
    if tls is None or tls.insecure or tls.server_name is not None:
        return
    if any(is_unix(endpoint.address) for endpoint in cluster.endpoints):
        yield Finding(("clusters", name, "tls"), "a Unix socket has no name to verify: give server_name")


def _check_route(at: Location, route: Route, known: Collection[str]) -> Iterator[Finding]:
    if route.name.startswith(_OWN_PREFIXES):
        yield Finding((*at, "name"), f"names that begin with {' or '.join(_OWN_PREFIXES)} are the mesh's own")
    yield from _check_exceptions((*at, "match", "except_prefixes"), route.match)
    for where, name in route.named_clusters():
        if name not in known:
            meant = suggestion(name, known) or "; a cluster {service: NAME} follows a service of the registry"
            yield Finding((*at, *where), f'there is no cluster "{name}"{meant}')
    named: set[str] = set()
    for index, part in enumerate(route.to):
        if part.when is not None:
            continue
        if part.cluster in named:
            reason = f'"{part.cluster}" stands twice in this split; add the weights up'
            yield Finding((*at, "to", index, "cluster"), reason)
        named.add(part.cluster)


def _check_exceptions(at: Location, match: Match) -> Iterator[Finding]:
    if match.except_prefixes and match.path_prefix is None:
        yield Finding(at, "except_prefixes needs path_prefix")
        return
    for index, prefix in enumerate(match.except_prefixes):
        if not _is_below(prefix, match.path_prefix or "/"):
            yield Finding((*at, index), f"{prefix} is not below {match.path_prefix}, so it excepts nothing")


def _conflicts(routes: Sequence[Route | None], beside: Sequence[Route]) -> Iterator[Finding]:
    names = {route.name: "of another source" for route in beside}
    places = {place_of(route.match) for route in routes if route is not None}
    nearby = [route for route in beside if place_of(route.match) in places]
    shared = Counter(place_of(route.match) for route in (*routes, *nearby) if route is not None)
    matches = {match_identity(route.match): route.name for route in nearby}
    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.name in names:
            yield Finding(("routes", index, "name"), f'"{route.name}" is the name of a route {names[route.name]} too')
        names[route.name] = "before it"
        if shared[place_of(route.match)] == 1:
            continue
        other = matches.setdefault(match_identity(route.match), route.name)
        if other != route.name:
            reason = f'"{route.name}" and "{other}" match the same requests; change one of them or add a condition'
            yield Finding(("routes", index, "match"), reason)


def _left_behind(beside: RoutingDocument, known: Collection[str]) -> Iterator[Finding]:
    for policy, policies in beside.policies.items():
        for _, name in policies.named_clusters():
            if name not in known:
                yield Finding(("clusters",), f'the policy "{policy}" of another source needs "{name}"')
    for route in beside.routes:
        for _, name in route.named_clusters():
            if name not in known:
                yield Finding(("clusters",), f'the route "{route.name}" of another source needs "{name}"')
    for name, cluster in beside.clusters.items():
        for other in cluster.failover.to if cluster.failover is not None else ():
            if other not in known:
                yield Finding(("clusters",), f'the cluster "{name}" of another source fails over to "{other}"')


def _is_below(path: str, prefix: str) -> bool:
    parent = prefix.rstrip("/")
    return path == parent or path.startswith(parent + "/")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True

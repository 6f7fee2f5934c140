"""What would become of a request, told by the worker that would serve it, and nothing of it done.

It reads the request with the code that reads requests, and asks the table and the balancer that serve: so what it says
is what would happen, with this worker's ejections, circuits and connections.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.conditions import query_of
from toska_gateway.worker.edge.cors import announced_headers
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import ASTERISK, BadMessage, RequestHead, read_request
from toska_gateway.worker.table import bare_host

if TYPE_CHECKING:
    from toska_gateway.worker.cluster import Cluster
    from toska_gateway.worker.endpoint import Endpoint
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.route import Route

MAX_OTHERS: Final = 200
"""Of so many other routes it is told why they were not taken, the most likely first: what is left shares a host."""


class Caller:
    """Somebody who asks from an address: as much of a connection as choosing an endpoint looks at."""

    def __init__(self, plane: "Plane", peer: str, scheme: bytes) -> None:
        self.peer = peer
        self.forwarding = Forwarding(plane, peer, scheme)


def explain(plane: "Plane", request: bytes, peer: str, scheme: str) -> dict[str, Any]:
    """What would become of a request.

    Args:
        plane: What would serve it.
        request: Its head, as it comes over the wire.
        peer: The address that it comes from.
        scheme: http or https.

    Returns:
        Plain data of the shape of `toska_common.contracts.gateway.Explanation`, without the routes' own words.
    """
    limits = plane.limits
    try:
        head = read_request(request, limits.headers, limits.target_bytes)
        caller = Caller(plane, peer, scheme.encode())
        route = plane.table.find(head, caller.forwarding)
        if head.escaped:
            plane.table.require_kept_slashes(head, caller.forwarding, route)
    except BadMessage as error:
        return {"outcome": "refused", "status": error.status, "error": error.code, "detail": error.reason}
    told: dict[str, Any] = {
        "host": head.host.decode("latin-1"),
        "path": head.path.decode("utf-8", "replace"),
        "others": _others(plane, head, caller, route),
    }
    if route is None:
        allowed = plane.table.allowed_methods(head, caller.forwarding)
        told |= {"outcome": "no-route", "status": 405 if allowed else 404}
        told["error"] = "method-not-allowed" if allowed else "no-route"
        told["allowed_methods"] = [method.decode() for method in allowed]
        return told
    told |= {"rank": plane.table.place(route), "outcome": "forwarded" if route.clusters else "answered"}
    told["split"], shares = _shares(route, head, caller)
    told["clusters"] = [
        _cluster(plane, name, share, head, caller, why) for name, share, why in _failed_over(plane, shares)
    ]
    return told


def _others(plane: "Plane", head: RequestHead, caller: Caller, taken: "Route | None") -> list[dict[str, Any]]:
    # Those that nearly matched are what people look for; where nothing is against one, another goes before it.
    others = [
        (reasons_against(route, head, caller.forwarding), place)
        for place, route in enumerate(plane.table.routes)
        if route is not taken
    ]
    near = sorted(others, key=lambda other: (len(other[0]), other[1]))
    return [{"rank": rank, "reasons": why} for why, rank in near[:MAX_OTHERS]]


def reasons_against(route: "Route", head: RequestHead, forwarding: Forwarding) -> list[str]:
    """Every condition of a route that a request does not meet."""
    found: list[str] = []
    host, path = bare_host(head.host), head.path
    if route.host and not (host.endswith(route.host[1:]) if route.host[:1] == b"*" else host == route.host):
        found.append(f"host is not {route.host.decode()}")
    if route.path is not None:
        if path != route.path:
            found.append(f"path is not {route.path.decode()}")
    elif route.path_regex is not None:
        if not route.path_regex.fits(path):
            found.append("path does not fit the route's path_regex")
    elif route.template is not None:
        if not route.template.fits(path):
            found.append("path does not fit the route's path_template")
    elif not _is_below(path, route.prefix):
        found.append(f"path is not below {route.prefix.decode()}")
    if not route.takes_method(head):
        found.append(f"method is not {b', '.join(sorted(route.methods)).decode()}")
    found += [f"path is below {one.decode()}" for one in route.except_prefixes if _is_below(path, one)]
    announced = announced_headers(head) if route.preflights else frozenset[bytes]()
    found += [
        f"header {name.decode()} is not {value.decode('latin-1')}"
        for name, value in route.headers
        if head.field(name) != value and name not in announced
    ]
    found += [one.told() for one in route.others if not one.holds(head, forwarding) and not one.may_hold(announced)]
    given = query_of(head) if route.query else {}
    found += [f"query {key} is not {value}" for key, value in route.query if value not in given.get(key, ())]
    return found


def _is_below(path: bytes, prefix: bytes) -> bool:
    stem = prefix.rstrip(b"/")
    return path != ASTERISK and (path == stem or path.startswith(stem + b"/"))


def _shares(route: "Route", head: RequestHead, caller: Caller) -> tuple[str, dict[str, float]]:
    """How much of such requests each cluster gets, and why it is so, where there is something to choose."""
    split, sticky = route.split, route.sticky
    if split is None:
        return "", dict.fromkeys(route.clusters, 1.0)
    shares = dict.fromkeys([name for _, name in split.whens], 0.0) | dict(split.shares())
    chosen, why = split.find_when(head, caller.forwarding), "the conditions of its part hold"
    if chosen is None and sticky is not None:
        # Nobody verifies a token here, so where a claim decides it is not known which caller this is.
        key = sticky.key(head, caller.forwarding, None)
        if key is None:
            return f"by weight; callers stay with theirs by {sticky.what}, which is not known here", shares
        chosen, why = sticky.of_key(key), f"the caller stays with it, by {sticky.what}"
    if chosen is None:
        return "by weight", shares
    return f"{chosen}: {why}", {name: float(name == chosen) for name in shares}


def _failed_over(plane: "Plane", shares: dict[str, float]) -> Iterator[tuple[str, float, str]]:
    """Each cluster of a split and its share, and those that take over from it now, with why."""
    for name, share in shares.items():
        cluster = plane.cluster(name)
        if cluster is None or cluster.failover is None:
            yield name, share, ""
            continue
        loads = {one.name: load for one, load in cluster.failover.loads(cluster, plane.clusters, plane.now)}
        why = f"{cluster.well} of {len(cluster.endpoints)} endpoints of {name} are well"
        if cluster.breaker is not None and not cluster.breaker.admits(plane.now):
            why = f"the circuit of {name} is {cluster.breaker.state.value}"
        own = loads.pop(name, 0.0)
        yield name, share * own, f"{why}: it carries {own:.0%}" if loads else ""
        for other, load in loads.items():
            yield other, share * load, f"takes over from {name}: {why}"


def _cluster(plane: "Plane", name: str, share: float, head: RequestHead, caller: Caller, why: str) -> dict[str, Any]:
    cluster = plane.cluster(name)
    if cluster is None:
        return {"name": name, "share": share, "refusal": "it is not known to the worker yet"}
    shares = cluster.shares(head, caller, plane.now)
    return {
        "name": name,
        "share": share,
        "connections": cluster.connections,
        "pending": len(cluster.pending),
        "circuit": None if cluster.breaker is None else cluster.breaker.state.value,
        "refusal": _refusal(plane, cluster),
        "failover": why,
        "endpoints": [_endpoint(one, shares.get(one, 0.0), plane.now) for one in cluster.endpoints.values()],
    }


def _refusal(plane: "Plane", cluster: "Cluster") -> str:
    if not cluster.endpoints:
        return "it has no endpoints"
    breaker = cluster.breaker
    if breaker is not None and not breaker.admits(plane.now):
        return f"its circuit is {breaker.state.value}: next probe in {breaker.retry_after_s(plane.now):.1f} s"
    if cluster.is_full:
        return f"it has all the {cluster.max_requests} requests in flight that it may have"
    if cluster.connections >= cluster.max_connections and len(cluster.pending) >= cluster.max_pending:
        return "all its connections are in use, and all places to wait"
    return ""


def _endpoint(endpoint: "Endpoint", share: float, now: float) -> dict[str, Any]:
    return {
        "key": endpoint.key,
        "address": str(endpoint),
        "weight": endpoint.weight,
        "zone": endpoint.zone,
        "active": endpoint.in_flight,
        "share": share,
        "state": _state(endpoint, share, now),
    }


def _state(endpoint: "Endpoint", share: float, now: float) -> str:
    if endpoint.ejected_until > now:
        why = f"{endpoint.failures} failures in a row" if endpoint.unreachable else "bad answers in a row"
        return f"ejected for {endpoint.ejected_until - now:.1f} s, after {why}"
    if not endpoint.cluster.is_well(endpoint):
        return "unhealthy: it fails its health check"
    zone = endpoint.cluster.zone
    if endpoint.healthy and not share and zone and endpoint.zone != zone:
        return f"healthy, but zone {zone} goes first"
    return "healthy" if endpoint.healthy else "unhealthy"

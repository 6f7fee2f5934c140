"""What would become of a request, told by the worker that would serve it, and nothing of it done.

It reads the request with the code that reads requests, and asks the table and the balancer that serve: so what it says
is what would happen, with this worker's ejections, circuits and connections.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from toska_gateway.worker.edge.cors import announced_headers
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import ASTERISK, BadMessage, RequestHead, read_request
from toska_gateway.worker.table import bare_host

if TYPE_CHECKING:
    from toska_gateway.worker.cluster import Cluster, Endpoint
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.table import Route

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
        route = plane.table.find(head)
        if head.escaped:
            plane.table.require_kept_slashes(head, route)
    except BadMessage as error:
        return {"outcome": "refused", "status": error.status, "error": error.code, "detail": error.reason}
    told: dict[str, Any] = {
        "host": head.host.decode("latin-1"),
        "path": head.path.decode("utf-8", "replace"),
        "others": _others(plane, head, route),
    }
    if route is None:
        allowed = plane.table.allowed_methods(head)
        told |= {"outcome": "no-route", "status": 405 if allowed else 404}
        told["error"] = "method-not-allowed" if allowed else "no-route"
        told["allowed_methods"] = [method.decode() for method in allowed]
        return told
    told |= {"rank": route.rank, "outcome": "forwarded" if route.clusters else "answered"}
    caller = Caller(plane, peer, scheme.encode())
    told["clusters"] = [
        _cluster(plane, name, share, head, caller) for name, share in zip(route.clusters, _shares(route), strict=True)
    ]
    return told


def _others(plane: "Plane", head: RequestHead, taken: "Route | None") -> list[dict[str, Any]]:
    # Those that nearly matched are what people look for.
    near = sorted((len(why), route.rank, why) for route in plane.table.routes if (why := _why_not(route, head, taken)))
    return [{"rank": rank, "reasons": why} for _, rank, why in near[:MAX_OTHERS]]


def _why_not(route: "Route", head: RequestHead, taken: "Route | None") -> list[str]:
    """Every reason why a route does not take the request; none of the one that does."""
    if route is taken:
        return []
    why = reasons_against(route, head)
    return why or ([] if taken is None else [f"route {taken.name} goes before it"])


def reasons_against(route: "Route", head: RequestHead) -> list[str]:
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
    elif not _is_below(path, route.prefix):
        found.append(f"path is not below {route.prefix.decode()}")
    if not route.takes_method(head):
        found.append(f"method is not {b', '.join(sorted(route.methods)).decode()}")
    found += [f"path is below {one.decode()}" for one in route.except_prefixes if _is_below(path, one)]
    found += [
        f"header {name.decode()} is not {value.decode('latin-1')}"
        for name, value in route.headers
        if head.field(name) != value and not (route.preflights and name in announced_headers(head))
    ]
    given = parse_qs(head.query[1:].decode("ascii"), keep_blank_values=True) if route.query else {}
    found += [f"query {key} is not {value}" for key, value in route.query if value not in given.get(key, ())]
    return found


def _is_below(path: bytes, prefix: bytes) -> bool:
    stem = prefix.rstrip(b"/")
    return path != ASTERISK and (path == stem or path.startswith(stem + b"/"))


def _shares(route: "Route") -> list[float]:
    bounds = [0, *route.weights]
    return [(end - start) / bounds[-1] for start, end in pairwise(bounds)]


def _cluster(plane: "Plane", name: str, share: float, head: RequestHead, caller: Caller) -> dict[str, Any]:
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
        "state": _state(endpoint, now),
    }


def _state(endpoint: "Endpoint", now: float) -> str:
    if endpoint.ejected_until > now:
        why = f"{endpoint.failures} failures in a row" if endpoint.unreachable else "bad answers in a row"
        return f"ejected for {endpoint.ejected_until - now:.1f} s, after {why}"
    if not endpoint.cluster.is_well(endpoint):
        return "unhealthy: it fails its health check"
    return "healthy" if endpoint.healthy else "unhealthy"

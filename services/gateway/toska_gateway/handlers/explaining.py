"""Why a request goes where it goes."""

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from toska_common.contracts.explanation import ExplainRequest, Explanation
from toska_common.contracts.gateway import RouteOrigin
from toska_common.contracts.routing import Route
from toska_common.errors import InvalidInput
from toska_common.routing.order import is_automatic, why_before

from toska_gateway.parts import Parts, PartsSlot


def explain_routes(slot: PartsSlot) -> APIRouter:
    """The handler."""
    router = APIRouter(prefix="/api/v1/gateway", tags=["gateway"])

    @router.post("/explain")
    async def explain(request: ExplainRequest) -> Explanation:
        """Which route, policies, cluster and endpoint a request would get, and why not others. Needs the admin token.

        Nothing is sent and nothing counted. A worker answers by its own ejections and circuits.
        """
        parts = slot.get()
        scheme, head = to_wire(request, parts.data_plane.urls[0])
        told = await parts.data_plane.explain(head, request.client, scheme)
        return Explanation.model_validate(_in_routes_words(told, parts))

    return router


def to_wire(request: ExplainRequest, own_url: str) -> tuple[str, bytes]:
    """The scheme, and the request's head as it would come.

    Raises:
        InvalidInput: The URL is none of HTTP, or something is not Latin-1.
    """
    url = request.url if "://" in request.url else own_url.rstrip("/") + "/" + request.url.lstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput("url is an http:// or https:// URL, or a path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    names = {line.partition(":")[0].lower() for line in request.headers}
    own = () if "host" in names else (f"Host: {parts.netloc.rpartition('@')[2]}",)
    lines = (f"{request.method} {target} HTTP/1.1", *own, *request.headers, "", "")
    try:
        return parts.scheme, "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{error.object[error.start]!r} cannot stand in a request; percent-encode it") from None


def origin_of(parts: Parts, rank: int, route: Route) -> RouteOrigin:
    """Who made the route in this place."""
    if parts.routing.is_mesh_route(rank):
        return "mesh"
    return "automatic" if is_automatic(route) else "operator"


def _in_routes_words(told: dict[str, Any], parts: Parts) -> dict[str, Any]:
    table = parts.routing.served.table
    rank: int | None = told.get("rank")
    taken = table.routes[rank] if rank is not None and rank < len(table.routes) else None
    if rank is not None and taken is not None:
        words = taken.model_dump(
            mode="json",
            exclude_defaults=True,
            include={"match", "policies", "policies_from", "priority", "redirect", "respond", "sticky"},
        )
        told |= {"route": taken.name, "origin": origin_of(parts, rank, taken), **words}
    for choice in told.get("clusters", ()):
        cluster = table.clusters.get(choice["name"])
        choice["balancer"] = cluster.balancer if cluster else ""
    told["others"] = [
        _other(table.routes[int(other["rank"])], other, taken)
        for other in told.get("others", ())
        if other["rank"] < len(table.routes)
    ]
    return told


def _other(route: Route, told: dict[str, Any], taken: Route | None) -> dict[str, Any]:
    """A route that does not take the request; where nothing is against it, by which rule another goes before it."""
    reasons: list[str] = told["reasons"]
    if not reasons and taken is not None:
        reasons = [f"route {taken.name} goes before it: {why_before(taken, route)}"]
    return {"name": route.name, "rank": told["rank"], "reasons": reasons}

"""How the gateway is, and which routes it serves in which order."""

import anyio
from fastapi import APIRouter
from toska_common.contracts.gateway import GatewayOverview, RankedRoute, RouterLink

from toska_gateway.follower import SnapshotFollower
from toska_gateway.handlers.explaining import origin_of
from toska_gateway.handlers.workers import overview
from toska_gateway.parts import Parts, PartsSlot


def status_routes(slot: PartsSlot) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/gateway", tags=["gateway"])

    @router.get("")
    async def get_gateway() -> GatewayOverview:
        """What is served, by which workers, and how the gateway stands with the router."""
        return _overview(slot.get())

    @router.get("/routes")
    async def list_ranked_routes() -> list[RankedRoute]:
        """Every route in its order of precedence: a request is taken by the first that matches."""
        parts = slot.get()
        return [
            RankedRoute(
                rank=rank,
                origin=origin_of(parts, rank, route),
                route=route,
            )
            for rank, route in enumerate(parts.routing.served.table.routes)
        ]

    return router


def _overview(parts: Parts) -> GatewayOverview:
    routing, current = parts.routing, parts.routing.current
    urls = parts.data_plane.urls
    return GatewayOverview(
        version=current.version if current else "",
        source=routing.source,
        listens_on=urls[0],
        listeners=tuple(urls),
        uptime_seconds=round(anyio.current_time() - parts.started_at, 3),
        routes=len(routing.served.table.routes),
        clusters=len(routing.served.table.clusters),
        endpoints=sum(len(cluster.endpoints) for cluster in routing.served.endpoints.values()),
        workers=overview(parts.data_plane.workers()),
        router=_router_link(parts.mesh.follower) if parts.mesh else None,
        issuer_keys=tuple(parts.data_plane.issuer_keys()),
        file=parts.file.status() if parts.file else None,
    )


def _router_link(follower: SnapshotFollower) -> RouterLink:
    return RouterLink(
        url=follower.url,
        reachable=follower.reachable,
        error=follower.error,
        rejected=follower.rejected,
        rejected_version=follower.rejected_version,
    )

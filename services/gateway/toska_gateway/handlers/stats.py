"""What the gateway has counted, for `toska top` and whoever else looks at differences."""

from fastapi import APIRouter
from toska_common.contracts.gateway_stats import GatewayStats

from toska_gateway.parts import PartsSlot


def stats_routes(slot: PartsSlot) -> APIRouter:
    """The handler."""
    router = APIRouter(prefix="/api/v1/gateway", tags=["gateway"])

    @router.get("/stats")
    async def get_stats() -> GatewayStats:
        """All counts of routes, clusters and endpoints, summed over the workers. Prometheus has them on `/metrics`."""
        return await slot.get().data_plane.stats()

    return router

"""Forgetting stored responses before their time."""

from typing import Any

from fastapi import APIRouter
from toska_common.contracts.gateway import CachePurge, CachePurged
from toska_common.errors import InvalidInput

from toska_gateway.parts import PartsSlot
from toska_gateway.worker.cache.keys import read_url
from toska_gateway.worker.http1 import BadMessage

_REFUSED: dict[int | str, dict[str, Any]] = {422: {"description": "`url` is no URL, or no such route is served"}}


def cache_routes(slot: PartsSlot) -> APIRouter:
    """The handler."""
    router = APIRouter(prefix="/api/v1/gateway/cache", tags=["gateway"])

    @router.post("/purge", responses=_REFUSED)
    async def purge_cache(purge: CachePurge) -> CachePurged:
        """Forget stored responses in every worker: those of one `url`, of one `route`, or all. Needs the admin token.

        Returns once every worker has forgotten. Other gateways have stores of their own, and are asked themselves.
        """
        parts = slot.get()
        if purge.url is not None:
            try:
                read_url(purge.url)
            except (ValueError, BadMessage) as error:
                reason = error.reason if isinstance(error, BadMessage) else str(error)
                raise InvalidInput("url cannot be purged", problems=[{"field": "url", "reason": reason}]) from error
            return CachePurged(entries=await parts.data_plane.purge({"url": purge.url}))
        if purge.route is not None:
            if all(route.name != purge.route for route in parts.routing.served.table.routes):
                reason = "there is no route of this name"
                raise InvalidInput("route cannot be purged", problems=[{"field": "route", "reason": reason}])
            return CachePurged(entries=await parts.data_plane.purge({"route": purge.route}))
        return CachePurged(entries=await parts.data_plane.purge({}))

    return router

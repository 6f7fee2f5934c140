"""Reading the routing file again, for those who do not want to wait until it is looked at."""

from typing import Any

from fastapi import APIRouter
from toska_common.contracts.gateway import ReloadResult
from toska_common.errors import NotFound

from toska_gateway.parts import PartsSlot

_REFUSED: dict[int | str, dict[str, Any]] = {
    422: {"description": "The file is wrong, and what was served before is served on; `problems` names everything"}
}


def reload_routes(slot: PartsSlot) -> APIRouter:
    """The handler."""
    router = APIRouter(prefix="/api/v1/gateway", tags=["gateway"])

    @router.post("/reload", responses=_REFUSED)
    async def reload() -> ReloadResult:
        """Read the routing file now. Needs the admin token."""
        file = slot.get().file
        if file is None:
            raise NotFound("this gateway has no routing file")
        return await file.reload()

    return router

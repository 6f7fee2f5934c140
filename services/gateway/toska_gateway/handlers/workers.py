"""The gateway's worker processes, and renewing them."""

from collections.abc import Sequence

from fastapi import APIRouter
from toska_common.contracts.gateway import WorkerOverview

from toska_gateway.data_plane import WorkerStatus
from toska_gateway.parts import PartsSlot


def worker_routes(slot: PartsSlot) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/gateway/workers", tags=["gateway"])

    @router.get("")
    async def list_workers() -> list[WorkerOverview]:
        """Every worker process; those that are `draining` have been succeeded and finish what they have."""
        return list(overview(slot.get().data_plane.workers()))

    @router.post("/reload")
    async def reload_workers() -> list[WorkerOverview]:
        """Replace every worker by a new process, one after the other, and return them. Needs the admin token.

        Each successor serves before its predecessor stops accepting, so that no request is lost.
        """
        return list(overview(await slot.get().data_plane.renew()))

    return router


def overview(workers: Sequence[WorkerStatus]) -> tuple[WorkerOverview, ...]:
    """Workers as they are shown."""
    return tuple(
        WorkerOverview(pid=item.pid, state=item.state, connections=item.connections, requests=item.requests)
        for item in workers
    )

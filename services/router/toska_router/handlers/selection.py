"""`/api/v1/select`: endpoints for clients that balance by themselves."""

from typing import Any

from fastapi import APIRouter
from toska_common.contracts.selection import Accepted, Selected, SelectReport, SelectRequest

from toska_router.parts import Parts

_REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such cluster or service"},
    422: {"description": "The request is wrong; `problems` names what"},
    503: {"description": "It has no endpoint, or none that is not excluded; or no snapshot yet"},
}


def selection_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/select", tags=["selection"])

    @router.post("", responses=_REFUSALS)
    async def select(request: SelectRequest) -> Selected:
        """The endpoint that a strategy chooses for the next request, with what is known of the requests to it.

        It counts as having one more until that is reported, or for 30 s. The join token suffices.
        """
        return await parts.selector.select(request)

    @router.post("/report")
    async def report(report: SelectReport) -> Accepted:
        """What came of requests, for the strategies that go by load and latency. The join token suffices."""
        return Accepted(taken=parts.selector.report(report))

    return router

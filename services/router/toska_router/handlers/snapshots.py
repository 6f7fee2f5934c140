"""`/api/v1/snapshot`: what gateways follow."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
from fastapi import APIRouter, Request
from starlette.responses import Response
from toska_common.contracts.routing import Snapshot, SnapshotDelta, SnapshotPoll
from toska_common.credentials import Access

from toska_router.parts import Parts

LONGEST_WAIT = timedelta(minutes=10)


def snapshot_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1", tags=["snapshots"])

    @router.post("/snapshot", response_model=SnapshotDelta, responses={503: {"description": "None yet: ask again"}})
    async def poll_snapshot(poll: SnapshotPoll, request: Request) -> Response:
        """What a gateway lacks: at once if its versions are not the newest, else when there is news.

        After `wait_seconds` without any the answer is empty and has the versions that were sent. It changes nothing
        and needs no more than a read does; it is a POST since a version for each cluster does not fit a URL.
        """
        answer: bytes | None = None
        if poll.counted is not None and request.scope.get("state", {}).get("access") is Access.ADMIN:
            parts.tallies.hear(poll.counted)
        with parts.gateways.polling(poll):
            async with _until_disconnected(request):
                answer = await parts.publisher.answer(poll, LONGEST_WAIT)
        if answer is None:
            parts.publisher.get_snapshot()
            return Response(status_code=499)  # the gateway went away: nobody is there to read it
        return Response(answer, media_type="application/json")

    @router.get("/snapshot", response_model=Snapshot, responses={503: {"description": "None yet"}})
    async def get_snapshot() -> Response:
        """The whole snapshot."""
        snapshot = parts.publisher.get_snapshot()
        body = snapshot.model_dump_json(exclude_defaults=True)
        headers = {"etag": f'"{parts.publisher.version}"'}
        return Response(body, media_type="application/json", headers=headers)

    return router


@asynccontextmanager
async def _until_disconnected(request: Request) -> AsyncGenerator[None]:
    """Give up what is inside when the caller goes away; the server alone would let it wait to its end."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        yield
        group.cancel_scope.cancel()

"""Several resources at once: `/api/v1/changes` makes a list of changes, `/api/v1/document` is all that the API has."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from toska_common.contracts.changes import RequestedChange, RequestedChanges
from toska_common.contracts.revisions import ChangePreview, Kind
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import MeshError
from toska_common.routing.written import written

from toska_router.batches import Several, read_apply, read_changes
from toska_router.documents import by_kind
from toska_router.handlers.authors import HEADERS
from toska_router.handlers.bodies import is_yaml, read_body
from toska_router.handlers.changing import DRY_RUN, REFUSALS, make_or_preview
from toska_router.handlers.entries import answer
from toska_router.parts import Parts
from toska_router.sources import Sources

MAX_BODY_BYTES = 32 * 1024 * 1024
PRUNE = Annotated[bool, Query(description="Take away what the API has and the document has not")]
_NAMED: tuple[tuple[str, Kind], ...] = (("clusters", "cluster"), ("policies", "policy"))
_TOO_LARGE: dict[int | str, dict[str, Any]] = {
    413: {"description": f"Larger than {MAX_BODY_BYTES} bytes"},
    415: {"description": "Neither JSON nor YAML"},
}


def batch_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1", tags=["several at once"])

    @router.post(
        "/changes",
        response_model=ChangePreview,
        responses={**REFUSALS, **_TOO_LARGE},
        openapi_extra=_takes(_changes_schema()),
    )
    async def make_changes(request: Request, dry_run: DRY_RUN = False) -> Response:
        """Make all of these changes or none: one check of the whole, one revision, one snapshot.

        Their order does not matter, so a cluster can go in the same step as the routes that lead to it.
        """
        body = await read_body(request, MAX_BODY_BYTES)
        # In a thread, here and below: thousands of resources take a second.
        propose = await run_sync(partial(_prepare, body, parts.book.sources, yaml=is_yaml(request)))
        return await make_or_preview(parts, request, propose, dry_run=dry_run)

    @router.get("/document", response_model=RoutingDocument)
    async def get_document() -> Response:
        """All that the API has, as a routing document that can be put back."""
        own = by_kind(parts.book.sources.own)
        routes = [written(route) for route in own["route"].values()]
        named = {key: {name: written(one) for name, one in own[kind].items()} for key, kind in _NAMED}
        return answer({**named, "routes": routes})

    @router.post(
        "/document",
        response_model=ChangePreview,
        responses={**REFUSALS, **_TOO_LARGE},
        openapi_extra=_takes({"$ref": "#/components/schemas/RoutingDocument"}),
    )
    async def apply_document(request: Request, prune: PRUNE = False, dry_run: DRY_RUN = False) -> Response:
        """Have what a routing document says, all of it or nothing: what is new is made, what differs is replaced."""
        body, sources = await read_body(request, MAX_BODY_BYTES), parts.book.sources
        propose = await run_sync(partial(read_apply, body, sources, yaml=is_yaml(request), prune=prune))
        return await make_or_preview(parts, request, propose, dry_run=dry_run)

    return router


def _prepare(body: bytes, known: Sources, *, yaml: bool) -> Several:
    """Read a list of changes, and work out what patches come to unless something is changed meanwhile."""
    several = read_changes(body, yaml=yaml)
    with suppress(MeshError):  # whether it fits is decided on what holds then: another router may have made more of it
        several(known)
    return several


def _takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}, "parameters": HEADERS}


def _changes_schema() -> Mapping[str, Any]:
    """That of the list, with what it lists written out: a document of OpenAPI has no `$defs`."""
    schema = RequestedChanges.model_json_schema()
    schema["properties"]["changes"]["items"] = schema.pop("$defs")[RequestedChange.__name__]
    return schema

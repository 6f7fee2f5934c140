"""Who changed what and when, how versions differ, and going back: of one resource, and of everything."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from toska_common.contracts.revisions import (
    ChangePreview,
    ResourceRevision,
    Revision,
    Rollback,
    WrittenDifference,
)
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import NotFound
from toska_common.routing.differences import diff_resources

from toska_router.book import Outcome
from toska_router.documents import by_kind, changes_between
from toska_router.handlers.bodies import read_precondition
from toska_router.handlers.changing import DRY_RUN, REFUSALS, make_or_preview, written_differences
from toska_router.handlers.resources import COLLECTIONS, NAME, PARAMETERS, Collection
from toska_router.parts import Parts
from toska_router.proposals import Restore, RestoreAll
from toska_router.sources import Sources

LIMIT = Annotated[int, Query(ge=1, le=500, description="At most so many, the newest first")]
BEFORE = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only those before this revision")]
FROM = Annotated[int, Query(alias="from", ge=0, description="A revision; 0 is nothing at all")]
TO = Annotated[int | None, Query(ge=0, description="A revision; what holds now if left out")]


def history_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1")
    for collection in COLLECTIONS:
        _add_history(router, parts, collection)
        _add_rollback(router, parts, collection)
    _add_revisions(router, parts)
    _add_return(router, parts)
    return router


def _add_history(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path = collection.kind, collection.path

    @router.get(f"/{path}/{{name}}/history", name=f"list versions of {kind}", tags=["history"])
    async def list_versions(name: NAME, limit: LIMIT = 50, before: BEFORE = None) -> list[ResourceRevision]:
        """Every version that was made by the API, with who made it; also of what is gone."""
        return await parts.store.list_versions(kind, name, limit, before)

    @router.get(
        f"/{path}/{{name}}/diff",
        name=f"diff {kind}",
        response_model=WrittenDifference,
        response_model_exclude_defaults=True,
        tags=["history"],
    )
    async def diff(name: NAME, from_: FROM, to: TO = None) -> WrittenDifference:
        """How two versions differ; each is the one that held after that revision."""
        before = by_kind(await _state_at(parts, from_))[kind].get(name)
        after = by_kind(await _state_at(parts, parts.book.revision if to is None else to))[kind].get(name)
        if before is None and after is None:
            raise NotFound(f"there was no {kind} {name} of the API's at either revision")
        change = "added" if before is None else "removed" if after is None else "changed"
        differences = diff_resources(before, after)
        return WrittenDifference(kind=kind, name=name, change=change, differences=differences)


def _add_rollback(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path = collection.kind, collection.path

    @router.post(
        f"/{path}/{{name}}/rollback",
        name=f"roll {kind} back",
        response_model=ChangePreview,
        responses=REFUSALS,
        openapi_extra={"parameters": PARAMETERS},
        tags=["history"],
    )
    async def roll_back(name: NAME, to: Rollback, request: Request, dry_run: DRY_RUN = False) -> Response:
        """Make it what it was after a revision, which may be gone; that is a new revision."""
        resource = by_kind(await _state_at(parts, to.revision))[kind].get(name)
        propose = Restore(kind, name, resource, read_precondition(request))
        return await make_or_preview(parts, request, propose, "rollback", dry_run=dry_run)


def _add_revisions(router: APIRouter, parts: Parts) -> None:
    @router.get("/revisions", tags=["history"])
    async def list_revisions(limit: LIMIT = 50, before: BEFORE = None) -> list[Revision]:
        """Every change of routes, clusters and policies by the API: who made it, when, why, and what it changed."""
        return await parts.store.list_revisions(limit, before)

    @router.get(
        "/diff",
        response_model=ChangePreview,
        response_model_exclude_defaults=True,
        responses={404: REFUSALS[404]},
        tags=["history"],
    )
    async def diff_revisions(from_: FROM, to: TO = None) -> ChangePreview:
        """How everything that the API has differs between two revisions."""
        file = parts.book.sources.file
        before = await _state_at(parts, from_)
        after = await _state_at(parts, parts.book.revision if to is None else to)
        changes = changes_between(before, after)
        # Without the file: its content then is not known, and what was written is the same with it.
        outcome = Outcome(Sources(own=before), Sources(file, after), changes, parts.book.revision)
        return ChangePreview(written=written_differences(outcome))


def _add_return(router: APIRouter, parts: Parts) -> None:
    @router.post(
        "/rollback",
        response_model=ChangePreview,
        responses={status: REFUSALS[status] for status in (404, 409, 422, 503)},
        openapi_extra={"parameters": PARAMETERS},
        tags=["history"],
    )
    async def roll_everything_back(to: Rollback, request: Request, dry_run: DRY_RUN = False) -> Response:
        """Make everything that the API has what it was after a revision, in one transaction; a new revision."""
        state = await _state_at(parts, to.revision)
        return await make_or_preview(parts, request, RestoreAll(state), "rollback", dry_run=dry_run)


async def _state_at(parts: Parts, revision: int) -> RoutingDocument:
    state = await parts.store.state_at(revision)
    if state is None:
        raise NotFound(f"there is no revision {revision} to look at; the newest is {parts.book.revision}")
    return state

"""`/api/v1/rollouts`: canaries that are moved step by step, and what was seen on the way."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from toska_common.contracts.rollouts import Rollout, RolloutEntry, RolloutEvent
from toska_common.errors import InvalidInput
from toska_common.routing.written import written

from toska_router.experiments.changes import BY as EXPERIMENT
from toska_router.handlers.authors import ACTOR, read_author
from toska_router.handlers.bodies import read_precondition, read_resource
from toska_router.handlers.changing import REFUSALS
from toska_router.handlers.entries import answer
from toska_router.handlers.resources import NAME, PARAMETERS
from toska_router.parts import Parts
from toska_router.rollouts.changes import Action, act, delete_rollout, put_rollout, status_of
from toska_router.rollouts.leading import BY as ROLLOUT
from toska_router.runs.book import Check, precondition_of
from toska_router.runs.records import RolloutRecord

LIMIT = Annotated[int, Query(ge=1, le=500, description="The newest so many lines")]
_THEMSELVES = frozenset({ROLLOUT, EXPERIMENT})
CHANGES: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (404, 409, 412, 422, 503)}


def rollout_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])
    _add_reads(router, parts)
    _add_changes(router, parts)
    return router


def _add_reads(router: APIRouter, parts: Parts) -> None:
    @router.get("", response_model=list[RolloutEntry])
    async def list_rollouts() -> Response:
        """All rollouts by name, those that are over included, with how far each is."""
        return answer([_entry(parts, record) for _, record in sorted(parts.runs.runs.rollouts.items())])

    @router.get("/{name}", response_model=RolloutEntry, responses={404: REFUSALS[404]})
    async def get_rollout(name: NAME) -> Response:
        """One rollout, with what its present step has seen; its `ETag` is for `If-Match`."""
        return _answer(parts, parts.runs.get_rollout(name))

    @router.get("/{name}/history", response_model=list[RolloutEvent], responses={404: REFUSALS[404]})
    async def get_rollout_history(name: NAME, limit: LIMIT = 100) -> Response:
        """What became of it, the oldest first: each verdict with the numbers that it was found by."""
        parts.runs.get_rollout(name)
        return answer(await parts.runs.store.list_events("rollout", name, limit))


def _add_changes(router: APIRouter, parts: Parts) -> None:
    takes = {"schema": {"$ref": "#/components/schemas/Rollout"}}
    body = {"required": True, "content": {"application/json": takes, "application/yaml": takes}}

    @router.put(
        "/{name}",
        response_model=RolloutEntry,
        responses={201: {"description": "It is new", "model": RolloutEntry}, **CHANGES},
        openapi_extra={"requestBody": body, "parameters": PARAMETERS},
    )
    async def put_rollout_(name: NAME, request: Request) -> Response:
        """Begin a rollout, or one anew that is over. The body may leave out `name`."""
        rollout = await read_resource(request, Rollout, name=name)
        require_name(rollout.name, name)
        created = await put_rollout(parts.runs, rollout, who(request), condition(request))
        return _answer(parts, parts.runs.get_rollout(name), 201 if created else 200)

    @router.delete("/{name}", status_code=204, responses=CHANGES, openapi_extra={"parameters": PARAMETERS})
    async def delete_rollout_(name: NAME, request: Request) -> Response:
        """Take one away that is over, with its history; the route's own weights hold again."""
        await delete_rollout(parts.runs, name, condition(request))
        return Response(status_code=204)

    @router.post(
        "/{name}/{action}", response_model=RolloutEntry, responses=CHANGES, openapi_extra={"parameters": PARAMETERS}
    )
    async def act_on_rollout(name: NAME, action: Action, request: Request) -> Response:
        """Promote it to its next step whatever was seen, pause it, resume it, or roll it back."""
        await act(parts.runs, name, action, who(request), condition(request))
        return _answer(parts, parts.runs.get_rollout(name))


def who(request: Request) -> str:
    """Who asks, for a history.

    Raises:
        InvalidInput: They call themselves what rollouts and experiments are called that act by themselves.
    """
    author = read_author(request)
    if author.actor in _THEMSELVES:
        reason = f"{author.actor} is what the history calls those that act by themselves"
        raise InvalidInput(f"{ACTOR}: {reason}", problems=[{"field": ACTOR, "reason": reason}])
    return author.actor or author.credential or "somebody"


def condition(request: Request) -> Check:
    """The request's `If-Match` and `If-None-Match`."""
    precondition = read_precondition(request)
    return precondition_of(precondition.versions, absent=precondition.absent)


def require_name(written_name: str, name: str) -> None:
    """Refuse a body that calls itself something else than its URL does.

    Raises:
        InvalidInput: It does.
    """
    if written_name != name:
        reason = f"the URL says {name}"
        raise InvalidInput(reason, problems=[{"field": "name", "reason": reason}])


def _answer(parts: Parts, record: RolloutRecord, status: int = 200) -> Response:
    return answer(_entry(parts, record), status, version=record.version)


def _entry(parts: Parts, record: RolloutRecord) -> dict[str, Any]:
    return {
        "rollout": written(record.rollout),
        "status": status_of(record, parts.composer.table).model_dump(mode="json"),
        "version": record.version,
        "leader": parts.runs.runs.leader.router,
    }

"""`/api/v1/rollouts`: canaries that are moved step by step, and what was seen on the way."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from toska_common.contracts.rollouts import Rollout, RolloutEntry, RolloutEvent
from toska_common.routing.written import written

from toska_router.handlers.resources import NAME, PARAMETERS
from toska_router.handlers.runs import CHANGES, RunKind, condition, run_routes, who
from toska_router.parts import Parts
from toska_router.rollouts.changes import Action, act, delete_rollout, put_rollout, status_of
from toska_router.runs.records import RolloutRecord


def rollout_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = run_routes(parts, _ROLLOUTS)

    @router.post(
        "/{name}/{action}", response_model=RolloutEntry, responses=CHANGES, openapi_extra={"parameters": PARAMETERS}
    )
    async def act_on_rollout(name: NAME, action: Action, request: Request) -> Response:
        """Promote it to its next step whatever was seen, pause it, resume it, or roll it back."""
        await act(parts.runs, name, action, who(request), condition(request))
        return _ROLLOUTS.answer(parts, name)

    return router


def _entry(parts: Parts, record: RolloutRecord) -> dict[str, Any]:
    return {
        "rollout": written(record.rollout),
        "status": status_of(record, parts.composer.table).model_dump(mode="json"),
        "version": record.version,
        "leader": parts.runs.runs.leader.router,
    }


_ROLLOUTS = RunKind(
    "rollout",
    asked_for=Rollout,
    entry=RolloutEntry,
    event=RolloutEvent,
    records=lambda runs: runs.rollouts,
    show=_entry,
    put=put_rollout,
    delete=delete_rollout,
    seen="what its present step has seen",
    left="; the route's own weights hold again",
)

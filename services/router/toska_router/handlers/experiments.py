"""`/api/v1/experiments`: faults on live traffic for a limited time, and what they did."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from toska_common.contracts.experiments import Experiment, ExperimentEntry, ExperimentEvent
from toska_common.routing.written import written

from toska_router.experiments.changes import delete_experiment, put_experiment, stop_experiment
from toska_router.handlers.bodies import read_resource
from toska_router.handlers.changing import REFUSALS
from toska_router.handlers.entries import answer
from toska_router.handlers.resources import NAME, PARAMETERS
from toska_router.handlers.rollouts import CHANGES, LIMIT, condition, require_name, who
from toska_router.parts import Parts
from toska_router.runs.records import ExperimentRecord


def experiment_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/experiments", tags=["experiments"])
    _add_reads(router, parts)
    _add_changes(router, parts)
    return router


def _add_reads(router: APIRouter, parts: Parts) -> None:
    @router.get("", response_model=list[ExperimentEntry])
    async def list_experiments() -> Response:
        """All experiments by name, those that are over included."""
        return answer([_entry(parts, record) for _, record in sorted(parts.runs.runs.experiments.items())])

    @router.get("/{name}", response_model=ExperimentEntry, responses={404: REFUSALS[404]})
    async def get_experiment(name: NAME) -> Response:
        """One experiment, with what was counted; its `ETag` is for `If-Match`."""
        return _answer(parts, parts.runs.get_experiment(name))

    @router.get("/{name}/history", response_model=list[ExperimentEvent], responses={404: REFUSALS[404]})
    async def get_experiment_history(name: NAME, limit: LIMIT = 100) -> Response:
        """What became of it, the oldest first."""
        parts.runs.get_experiment(name)
        return answer(await parts.runs.store.list_events("experiment", name, limit))


def _add_changes(router: APIRouter, parts: Parts) -> None:
    takes = {"schema": {"$ref": "#/components/schemas/Experiment"}}
    body = {"required": True, "content": {"application/json": takes, "application/yaml": takes}}

    @router.put(
        "/{name}",
        response_model=ExperimentEntry,
        responses={201: {"description": "It is new", "model": ExperimentEntry}, **CHANGES},
        openapi_extra={"requestBody": body, "parameters": PARAMETERS},
    )
    async def put_experiment_(name: NAME, request: Request) -> Response:
        """Begin an experiment, or one anew that is over. The body may leave out `name`."""
        experiment = await read_resource(request, Experiment, name=name)
        require_name(experiment.name, name)
        created = await put_experiment(parts.runs, experiment, who(request), condition(request))
        return _answer(parts, parts.runs.get_experiment(name), 201 if created else 200)

    @router.post("/{name}/stop", response_model=ExperimentEntry, responses=CHANGES)
    async def stop_experiment_(name: NAME, request: Request) -> Response:
        """End it now."""
        await stop_experiment(parts.runs, name, who(request), condition(request))
        return _answer(parts, parts.runs.get_experiment(name))

    @router.delete("/{name}", status_code=204, responses=CHANGES, openapi_extra={"parameters": PARAMETERS})
    async def delete_experiment_(name: NAME, request: Request) -> Response:
        """Take one away that is over, with its history."""
        await delete_experiment(parts.runs, name, condition(request))
        return Response(status_code=204)


def _answer(parts: Parts, record: ExperimentRecord, status: int = 200) -> Response:
    return answer(_entry(parts, record), status, version=record.version)


def _entry(parts: Parts, record: ExperimentRecord) -> dict[str, Any]:
    return {
        "experiment": written(record.experiment),
        "status": record.status.model_dump(mode="json"),
        "version": record.version,
        "leader": parts.runs.runs.leader.router,
    }

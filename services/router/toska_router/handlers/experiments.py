"""`/api/v1/experiments`: faults on live traffic for a limited time, and what they did."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from toska_common.contracts.experiments import Experiment, ExperimentEntry, ExperimentEvent
from toska_common.routing.written import written

from toska_router.experiments.changes import delete_experiment, put_experiment, stop_experiment
from toska_router.handlers.resources import NAME, PARAMETERS
from toska_router.handlers.runs import CHANGES, RunKind, condition, run_routes, who
from toska_router.parts import Parts
from toska_router.runs.records import ExperimentRecord


def experiment_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = run_routes(parts, _EXPERIMENTS)

    @router.post(
        "/{name}/stop", response_model=ExperimentEntry, responses=CHANGES, openapi_extra={"parameters": PARAMETERS}
    )
    async def stop(name: NAME, request: Request) -> Response:
        """End it now."""
        await stop_experiment(parts.runs, name, who(request), condition(request))
        return _EXPERIMENTS.answer(parts, name)

    return router


def _entry(parts: Parts, record: ExperimentRecord) -> dict[str, Any]:
    return {
        "experiment": written(record.experiment),
        "status": record.status.model_dump(mode="json"),
        "version": record.version,
        "leader": parts.runs.runs.leader.router,
    }


_EXPERIMENTS = RunKind(
    "experiment",
    asked_for=Experiment,
    entry=ExperimentEntry,
    event=ExperimentEvent,
    records=lambda runs: runs.experiments,
    show=_entry,
    put=put_experiment,
    delete=delete_experiment,
    seen="what was counted",
)

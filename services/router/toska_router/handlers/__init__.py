"""The router's HTTP API: parse, call one method of the domain, return a contract."""

from fastapi import Depends, FastAPI

from toska_router.handlers.batches import batch_routes
from toska_router.handlers.experiments import experiment_routes
from toska_router.handlers.history import history_routes
from toska_router.handlers.parameters import require_known_parameters
from toska_router.handlers.resources import resource_routes
from toska_router.handlers.rollouts import rollout_routes
from toska_router.handlers.schemas import schema_routes
from toska_router.handlers.selection import selection_routes
from toska_router.handlers.snapshots import snapshot_routes
from toska_router.handlers.status import status_routes
from toska_router.parts import Parts


def add_handlers(app: FastAPI, parts: Parts) -> None:
    """Give `app` the whole API."""
    for routes in (resource_routes, batch_routes, history_routes, rollout_routes, experiment_routes):
        app.include_router(routes(parts), dependencies=[Depends(require_known_parameters)])
    for routes in (schema_routes, selection_routes, snapshot_routes, status_routes):
        app.include_router(routes(parts))

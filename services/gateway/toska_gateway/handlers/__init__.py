"""The gateway's admin API: parse, call one method, return a contract or a page."""

from fastapi import FastAPI

from toska_gateway.handlers.cache import cache_routes
from toska_gateway.handlers.docs import docs_routes
from toska_gateway.handlers.explaining import explain_routes
from toska_gateway.handlers.openapi import openapi_routes
from toska_gateway.handlers.problems import problem_routes
from toska_gateway.handlers.reload import reload_routes
from toska_gateway.handlers.sagas import saga_routes
from toska_gateway.handlers.scrape import scrape_route
from toska_gateway.handlers.stats import stats_routes
from toska_gateway.handlers.status import status_routes
from toska_gateway.handlers.workers import worker_routes
from toska_gateway.parts import PartsSlot

__all__ = ["add_file_handlers", "add_handlers", "add_mesh_handlers", "scrape_route"]


def add_handlers(app: FastAPI, slot: PartsSlot) -> None:
    """What every gateway has."""
    app.include_router(status_routes(slot))
    app.include_router(stats_routes(slot))
    app.include_router(worker_routes(slot))
    app.include_router(explain_routes(slot))
    app.include_router(cache_routes(slot))
    app.include_router(problem_routes())


def add_mesh_handlers(app: FastAPI, slot: PartsSlot) -> None:
    """The API of the whole mesh, for a gateway that belongs to one; ahead of the app's own document and docs."""
    app.include_router(openapi_routes(slot))
    app.include_router(saga_routes(slot))
    app.router.routes[:0] = docs_routes(slot)


def add_file_handlers(app: FastAPI, slot: PartsSlot) -> None:
    """For a gateway that serves a routing file."""
    app.include_router(reload_routes(slot))

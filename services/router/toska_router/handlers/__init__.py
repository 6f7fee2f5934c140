"""The router's HTTP API: parse, call one method of the domain, return a contract."""

from fastapi import FastAPI

from toska_router.handlers.resources import resource_routes
from toska_router.handlers.snapshots import snapshot_routes
from toska_router.handlers.status import status_routes
from toska_router.parts import Parts


def add_handlers(app: FastAPI, parts: Parts) -> None:
    """Give `app` the whole API."""
    for router in (resource_routes(parts), snapshot_routes(parts), status_routes(parts)):
        app.include_router(router)

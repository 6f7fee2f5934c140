"""`/api/v1/schemas`: the words of routing as JSON Schema, for editors and for whoever makes them by program."""

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from toska_common.contracts.experiments import Experiment
from toska_common.contracts.rollouts import Rollout
from toska_common.contracts.routing import Cluster, NamedPolicy, Route, RoutingDocument, WeightedCluster
from toska_common.errors import NotFound

from toska_router.handlers.resources import NAME
from toska_router.parts import Parts

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCHEMAS: dict[str, tuple[Any, str]] = {
    "document": (RoutingDocument, "A routing file, whole"),
    "route": (Route, "The body of PUT /api/v1/routes/NAME"),
    "cluster": (Cluster, "The body of PUT /api/v1/clusters/NAME"),
    "policy": (NamedPolicy, "The body of PUT /api/v1/policies/NAME; without for_services a route's policies, too"),
    "rollout": (Rollout, "The body of PUT /api/v1/rollouts/NAME"),
    "experiment": (Experiment, "The body of PUT /api/v1/experiments/NAME"),
    "split": (tuple[WeightedCluster, ...], "A route's to"),
}


def schema_routes(_: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/schemas", tags=["schemas"])

    @router.get("")
    async def list_schemas() -> dict[str, str]:
        """The names of the schemas, and what each is of."""
        return {name: of for name, (_, of) in _SCHEMAS.items()}

    @router.get("/{name}", responses={404: {"description": "There is no such schema"}})
    async def get_schema(name: NAME) -> dict[str, Any]:
        """One schema (JSON Schema 2020-12). What only a whole table shows is checked when it is sent."""
        found = _SCHEMAS.get(name)
        if found is None:
            raise NotFound(f"there is no schema {name}; known are {', '.join(_SCHEMAS)}")
        return {"$schema": DIALECT, "title": found[1], **TypeAdapter(found[0]).json_schema(mode="validation")}

    return router

"""`/api/v1/routes` and `/api/v1/clusters`: reading what holds, and changing what is the API's own."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.responses import Response
from toska_common.contracts.routing import Cluster, ClusterEntry, Endpoint, Route, RouteEntry
from toska_common.errors import InvalidInput, NotFound

from toska_router.handlers.bodies import entity_tag, read_precondition, read_resource, to_json
from toska_router.parts import Parts

NAME = Annotated[
    str, InPath(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$", description="Name of the resource")
]
_CONDITIONS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": description,
    }
    for name, description in (
        ("If-Match", "Change it only if this is still its ETag"),
        ("If-None-Match", "`*`: make it only if it is not there"),
    )
]


def _takes(schema: str) -> dict[str, Any]:
    reference = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    content = {"application/json": reference, "application/yaml": reference}
    return {"requestBody": {"required": True, "content": content}, "parameters": _CONDITIONS}


_REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such thing"},
    409: {"description": "Another source has it, or routes lead to it"},
    412: {"description": "If-Match or If-None-Match does not hold"},
}
_CHANGES: dict[int | str, dict[str, Any]] = {
    **{status: _REFUSALS[status] for status in (409, 412)},
    415: {"description": "Neither JSON nor YAML"},
    422: {"description": "It is wrong, or does not fit the table; `problems` names everything"},
}


def resource_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1")
    _add_routes(router, parts)
    _add_clusters(router, parts)
    return router


def _add_routes(router: APIRouter, parts: Parts) -> None:
    @router.get("/routes", response_model=list[RouteEntry], tags=["routes"])
    async def list_routes() -> Response:
        """All routes that hold, in their order of precedence, with where each comes from."""
        return _answer([_route_entry(parts, route) for route in parts.composer.table.routes])

    @router.get("/routes/{name}", response_model=RouteEntry, responses={404: _REFUSALS[404]}, tags=["routes"])
    async def get_route(name: NAME) -> Response:
        """One route; its `ETag` is for `If-Match`."""
        found = next((route for route in parts.composer.table.routes if route.name == name), None)
        if found is None:
            raise NotFound(f"there is no route {name}")
        return _answer(_route_entry(parts, found), version=parts.composer.versions.of(found))

    @router.put(
        "/routes/{name}",
        response_model=RouteEntry,
        responses={201: {"description": "It is new", "model": RouteEntry}, **_CHANGES},
        openapi_extra=_takes("Route"),
        tags=["routes"],
    )
    async def put_route(name: NAME, request: Request) -> Response:
        """Make a route, or replace it. The body may leave out `name`. Gateways have it within milliseconds."""
        route = await read_resource(request, Route, name=name)
        if route.name != name:
            reason = f"the URL says {name}; take a route away under its old name to rename it"
            raise InvalidInput(reason, problems=[{"field": "name", "reason": reason}])
        created = await parts.book.put_route(route, read_precondition(request))
        return _answer(_route_entry(parts, route), 201 if created else 200, version=parts.composer.versions.of(route))

    @router.delete("/routes/{name}", status_code=204, responses=_REFUSALS, tags=["routes"])
    async def delete_route(name: NAME, request: Request) -> Response:
        """Take one of the API's routes away."""
        await parts.book.delete_route(name, read_precondition(request))
        return Response(status_code=204)


def _add_clusters(router: APIRouter, parts: Parts) -> None:
    @router.get("/clusters", response_model=list[ClusterEntry], tags=["clusters"])
    async def list_clusters() -> Response:
        """All clusters by name, with their endpoints and where each comes from."""
        clusters = parts.composer.table.clusters
        return _answer([_cluster_entry(parts, name, cluster) for name, cluster in clusters.items()])

    @router.get("/clusters/{name}", response_model=ClusterEntry, responses={404: _REFUSALS[404]}, tags=["clusters"])
    async def get_cluster(name: NAME) -> Response:
        """One cluster; its `ETag` is for `If-Match`."""
        found = parts.composer.table.clusters.get(name)
        if found is None:
            raise NotFound(f"there is no cluster {name}")
        return _answer(_cluster_entry(parts, name, found), version=parts.composer.versions.of(found))

    @router.put(
        "/clusters/{name}",
        response_model=ClusterEntry,
        responses={201: {"description": "It is new", "model": ClusterEntry}, **_CHANGES},
        openapi_extra=_takes("Cluster"),
        tags=["clusters"],
    )
    async def put_cluster(name: NAME, request: Request) -> Response:
        """Make a cluster, or replace it: a `service` to follow, or fixed `endpoints`."""
        cluster = await read_resource(request, Cluster)
        created = await parts.book.put_cluster(name, cluster, read_precondition(request))
        entry = _cluster_entry(parts, name, cluster)
        return _answer(entry, 201 if created else 200, version=parts.composer.versions.of(cluster))

    @router.delete("/clusters/{name}", status_code=204, responses=_REFUSALS, tags=["clusters"])
    async def delete_cluster(name: NAME, request: Request) -> Response:
        """Take one of the API's clusters away; while routes lead to it, they are named instead."""
        await parts.book.delete_cluster(name, read_precondition(request))
        return Response(status_code=204)


def _answer(content: Any, status: int = 200, *, version: str = "") -> Response:
    headers = {"etag": entity_tag(version)} if version else {}
    return Response(to_json(content), status, headers=headers, media_type="application/json")


def _route_entry(parts: Parts, route: Route) -> dict[str, Any]:
    return {
        "route": _written(route),
        "source": parts.book.sources.source_of_route(route),
        "version": parts.composer.versions.of(route),
    }


def _cluster_entry(parts: Parts, name: str, cluster: Cluster) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": _written(cluster),
        "source": parts.book.sources.source_of_cluster(name),
        "version": parts.composer.versions.of(cluster),
        "endpoints": [endpoint.model_dump(mode="json") for endpoint in _endpoints(parts, name)],
    }


def _endpoints(parts: Parts, cluster: str) -> tuple[Endpoint, ...]:
    found = parts.publisher.pools.get(cluster)
    return found.endpoints if found is not None else ()


def _written(resource: Route | Cluster) -> dict[str, Any]:
    """A resource as people write it: what is as by default is left out, and what is left can be sent back."""
    return resource.model_dump(mode="json", exclude_defaults=True)

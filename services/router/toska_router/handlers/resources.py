"""`/api/v1/routes`, `/clusters` and `/policies`: reading what holds, and changing what is the API's own."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.responses import Response
from toska_common.contracts import Contract, Document
from toska_common.contracts.revisions import ChangePreview, Kind
from toska_common.contracts.routing import ClusterEntry, PolicyEntry, Route, RouteEntry
from toska_common.errors import InvalidInput
from toska_common.merge_patch import MEDIA_TYPE as MERGE_PATCH

from toska_router.documents import KINDS
from toska_router.handlers.authors import HEADERS
from toska_router.handlers.bodies import read_patch, read_precondition, read_resource
from toska_router.handlers.changing import DRY_RUN, REFUSALS, make_change, preview_change
from toska_router.handlers.entries import answer, get_entry, list_entries
from toska_router.parts import Parts
from toska_router.proposals import Delete, Patch, Put

NAME = Annotated[
    str, InPath(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$", description="Name of the resource")
]
_CONDITIONS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
    for name, description in (
        ("If-Match", "Change it only if this is still its ETag"),
        ("If-None-Match", "`*`: make it only if it is not there"),
    )
]
PARAMETERS = [*_CONDITIONS, *HEADERS]


@dataclass(frozen=True, slots=True)
class Collection:
    """Resources of one kind, as the API calls them."""

    kind: Kind
    path: str
    entry: type[Contract]
    listed: str
    replaced: str
    deleted: str

    @property
    def model(self) -> type[Document]:
        """What a body is read as."""
        return KINDS[self.kind]


COLLECTIONS = (
    Collection(
        "route",
        "routes",
        RouteEntry,
        "All routes that hold, in their order of precedence, with where each comes from.",
        "Make a route, or replace it. The body may leave out `name`. Gateways have it within milliseconds.",
        "Take one of the API's routes away.",
    ),
    Collection(
        "cluster",
        "clusters",
        ClusterEntry,
        "All clusters by name, with their endpoints and where each comes from.",
        "Make a cluster, or replace it: a `service` to follow, or fixed `endpoints`.",
        "Take one of the API's clusters away; while routes or policies lead to it, they are named instead.",
    ),
    Collection(
        "policy",
        "policies",
        PolicyEntry,
        "All policies by name, with the routes that name them.",
        "Make a policy, or replace it, in all routes that name it in `policies_from`.",
        "Take one of the API's policies away; while routes name it, they are named instead.",
    ),
)


def resource_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1")
    for collection in COLLECTIONS:
        _add_reads(router, parts, collection)
        _add_put(router, parts, collection)
        _add_patch(router, parts, collection)
        _add_delete(router, parts, collection)
    return router


def _add_reads(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path, entry = collection.kind, collection.path, collection.entry

    async def list_all() -> Response:
        return answer(list_entries(parts, kind))

    async def get_one(name: NAME) -> Response:
        found = get_entry(parts, kind, name)
        return answer(found, version=found["version"])

    router.add_api_route(
        f"/{path}",
        list_all,
        response_model=list[entry],
        description=collection.listed,
        name=f"list {path}",
        tags=[path],
    )
    router.add_api_route(
        f"/{path}/{{name}}",
        get_one,
        response_model=entry,
        responses={404: REFUSALS[404]},
        description=f"One {kind}; its `ETag` is for `If-Match`.",
        name=f"get {kind}",
        tags=[path],
    )


def _add_put(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path, entry = collection.kind, collection.path, collection.entry

    async def put(name: NAME, request: Request, dry_run: DRY_RUN = False) -> Response:
        resource = await _read(request, collection, name)
        propose = Put(kind, name, resource, read_precondition(request))
        if dry_run:
            return await preview_change(parts, propose)
        outcome = await make_change(parts, request, propose)
        created = outcome.before.find_written(kind, name) is None
        found = get_entry(parts, kind, name)
        return answer(found, 201 if created else 200, version=found["version"], revision=outcome.revision)

    changes = {status: REFUSALS[status] for status in (409, 412, 422, 503)}
    created: dict[int | str, dict[str, Any]] = {201: {"description": "It is new", "model": entry}}
    router.add_api_route(
        f"/{path}/{{name}}",
        put,
        methods=["PUT"],
        response_model=entry | ChangePreview,
        responses={**created, 415: {"description": "Neither JSON nor YAML"}, **changes},
        openapi_extra=_takes(collection.model.__name__),
        description=collection.replaced,
        name=f"put {kind}",
        tags=[path],
    )


def _add_patch(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path, entry = collection.kind, collection.path, collection.entry

    async def patch(name: NAME, request: Request, dry_run: DRY_RUN = False) -> Response:
        propose = Patch(kind, name, await read_patch(request), read_precondition(request))
        if dry_run:
            return await preview_change(parts, propose)
        outcome = await make_change(parts, request, propose)
        found = get_entry(parts, kind, name)
        return answer(found, version=found["version"], revision=outcome.revision)

    router.add_api_route(
        f"/{path}/{{name}}",
        patch,
        methods=["PATCH"],
        response_model=entry | ChangePreview,
        responses={415: {"description": "No JSON Merge Patch; `Accept-Patch` says what is"}, **REFUSALS},
        openapi_extra=_PATCHES,
        description=f"Change a part of one of the API's own, by a JSON Merge Patch of what GET has as `{kind}`.",
        name=f"patch {kind}",
        tags=[path],
    )


def _add_delete(router: APIRouter, parts: Parts, collection: Collection) -> None:
    kind, path = collection.kind, collection.path

    async def delete(name: NAME, request: Request, dry_run: DRY_RUN = False) -> Response:
        propose = Delete(kind, name, read_precondition(request))
        if dry_run:
            return await preview_change(parts, propose)
        outcome = await make_change(parts, request, propose)
        return Response(status_code=204, headers={"x-toska-revision": str(outcome.revision)})

    router.add_api_route(
        f"/{path}/{{name}}",
        delete,
        methods=["DELETE"],
        status_code=204,
        responses={200: {"description": "As a dry run", "model": ChangePreview}, **REFUSALS},
        openapi_extra={"parameters": PARAMETERS},
        description=collection.deleted,
        name=f"delete {kind}",
        tags=[path],
    )


_PATCHES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            MERGE_PATCH: {"schema": {"type": "object", "description": "null takes a key away; lists are taken whole"}}
        },
    },
    "parameters": PARAMETERS,
}


def _takes(schema: str) -> dict[str, Any]:
    reference = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    content = {"application/json": reference, "application/yaml": reference}
    return {"requestBody": {"required": True, "content": content}, "parameters": PARAMETERS}


async def _read(request: Request, collection: Collection, name: str) -> Document:
    if collection.model is not Route:
        return await read_resource(request, collection.model)
    route = await read_resource(request, Route, name=name)
    if route.name != name:
        reason = f"the URL says {name}; take a route away under its old name to rename it"
        raise InvalidInput(reason, problems=[{"field": "name", "reason": reason}])
    return route

"""The OpenAPI documents: of the whole mesh, and of each service."""

from fastapi import APIRouter
from starlette.responses import Response
from toska_common.contracts.gateway import ServiceDocument
from toska_common.contracts.names import ServiceName
from toska_common.errors import NotFound

from toska_gateway.openapi.catalog import ApiCatalog
from toska_gateway.parts import PartsSlot


def openapi_routes(slot: PartsSlot) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1/openapi", tags=["openapi"])

    @router.get("")
    async def list_documents() -> list[ServiceDocument]:
        """The services whose operations can be reached through the gateway, users' own first."""
        return list(await find_catalog(slot).list_services())

    @router.get("/{service}", response_model=dict)
    async def get_document(service: ServiceName) -> Response:
        """One service's OpenAPI document, with its operations as they are called through the gateway."""
        return json_response(await find_catalog(slot).single(service))

    return router


def find_catalog(slot: PartsSlot) -> ApiCatalog:
    """The documents of this gateway's mesh."""
    mesh = slot.get().mesh
    if mesh is None:
        raise NotFound("this gateway belongs to no mesh")
    return mesh.catalog


def json_response(content: bytes) -> Response:
    """A document that is asked for anew each time: it changes with the services."""
    return Response(content, media_type="application/json", headers={"cache-control": "no-cache"})

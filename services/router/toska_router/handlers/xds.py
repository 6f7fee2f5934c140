"""Who is programmed over xDS, and how to be."""

from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query
from toska_common.contracts.xds import XdsStatus
from toska_common.errors import NotFound

NODE = Annotated[str, Query(min_length=1, max_length=128, description="The client's `node.id`")]
PORT = Annotated[int, Query(ge=1, le=65535, description="Where Envoy's administration is, on its machine")]


class Programming(Protocol):
    """What is asked here."""

    @property
    def status(self) -> XdsStatus: ...

    def envoy_bootstrap(self, node: str, admin_port: int) -> dict[str, Any]: ...

    def grpc_bootstrap(self, node: str) -> dict[str, Any]: ...


def xds_routes(programming: Programming | None) -> APIRouter:
    """The handlers; `None` is a router without xDS."""
    router = APIRouter(prefix="/api/v1/xds", tags=["xds"])

    @router.get("")
    async def get_xds() -> XdsStatus:
        """Envoys and gRPC clients: what each runs, what it refuses and why; and what Envoy cannot be told."""
        return XdsStatus() if programming is None else programming.status

    @router.get("/bootstrap/envoy", responses={404: {"description": "This router serves no xDS"}})
    async def get_envoy_bootstrap(node: NODE = "envoy", admin_port: PORT = 9901) -> dict[str, Any]:
        """For `envoy -c`: what an Envoy is started with, to be told the rest by this router."""
        return _required(programming).envoy_bootstrap(node, admin_port)

    @router.get("/bootstrap/grpc", responses={404: {"description": "This router serves no xDS"}})
    async def get_grpc_bootstrap(node: NODE = "grpc") -> dict[str, Any]:
        """For `GRPC_XDS_BOOTSTRAP`: what a gRPC client reads that dials `xds:///CLUSTER`."""
        return _required(programming).grpc_bootstrap(node)

    return router


def _required(programming: Programming | None) -> Programming:
    if programming is None:
        raise NotFound("this router serves no xDS: set TOSKA_ROUTER_XDS=true")
    return programming

"""How the router and its gateways are."""

from fastapi import APIRouter
from toska_common.contracts.router import DatabaseStatus, GatewayStatus, RouterStatus

from toska_router.parts import Parts


def status_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix="/api/v1", tags=["status"])

    @router.get("/status")
    async def get_status() -> RouterStatus:
        """Versions and counts, whether registry and database answer, and what is wrong with the routing file."""
        table, snapshot = parts.composer.table, parts.publisher.snapshot
        return RouterStatus(
            version=parts.publisher.version,
            routes_version="" if snapshot is None else snapshot.routes_version,
            routes=len(table.routes),
            clusters=len(table.clusters),
            endpoints=parts.publisher.endpoint_count,
            gateways=len(parts.gateways),
            policies=len(parts.book.sources.document().policies),
            registry=parts.follower.status,
            database=DatabaseStatus(
                place=parts.store.place,
                connected=parts.book.is_open and not parts.book.outage,
                error=parts.book.outage,
                revision=parts.book.revision,
                problems=parts.book.problems,
            ),
            file=parts.book.file_status,
            refused_offers=parts.composer.refused_offers,
        )

    @router.get("/gateways")
    async def list_gateways() -> list[GatewayStatus]:
        """Which gateway runs which version of the routes, when it asked last, and what it refused."""
        return parts.gateways.list_statuses()

    return router

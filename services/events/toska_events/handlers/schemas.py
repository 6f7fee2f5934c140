"""`/api/v1/events/schemas`: what a topic's events carry, and which version may come next."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from toska_common.contracts.event_schemas import CompatibilityChange, SchemaProposal, SchemaVersion, TopicSchema
from toska_common.errors import NotFound

from toska_events.access import PREFIX, require_own
from toska_events.parts import Parts
from toska_events.schemas.judging import Who

_REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"description": "It may not follow what is there; `problems` says where and why"}
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "Nobody proposed a schema for it"}}


def schema_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=f"{PREFIX}/schemas", tags=["event schemas"])

    @router.get("")
    async def list_schemas() -> list[TopicSchema]:
        """The schemas of all topics, with every version."""
        return await parts.get_schemas().list_all()

    @router.get("/{topic}", responses=_UNKNOWN)
    async def get_schema(topic: str) -> TopicSchema:
        """One topic's versions, and what it asks of the next."""
        return await parts.get_schemas().get(topic)

    @router.get("/{topic}/versions/{version}", responses=_UNKNOWN)
    async def get_version(topic: str, version: int) -> SchemaVersion:
        """One version."""
        for found in (await parts.get_schemas().get(topic)).versions:
            if found.version == version:
                return found
        raise NotFound(f"the schema of {topic} has no version {version}", topic=topic, version=version)

    @router.post("/{topic}/versions", responses=_REFUSED)
    async def propose(
        request: Request,
        topic: str,
        proposal: SchemaProposal,
        service: Annotated[str, Query(max_length=64, description="Who proposes it")] = "",
        dry_run: Annotated[bool, Query(description="Only say whether it would be taken")] = False,
    ) -> TopicSchema:
        """Take a version, before the first event of it is published; the same again changes nothing."""
        require_own(topic, request.state.access)
        schemas, who = parts.get_schemas(), Who(service, parts.clock.now())
        if dry_run:
            return await schemas.try_out(topic, proposal, who)
        return await schemas.propose(topic, proposal, who)

    @router.put("/{topic}/compatibility", responses=_UNKNOWN)
    async def set_compatibility(topic: str, change: CompatibilityChange) -> TopicSchema:
        """Ask something else of later versions; those that are there stay."""
        return await parts.get_schemas().set_compatibility(topic, change.compatibility)

    @router.delete("/{topic}", status_code=204, responses=_UNKNOWN)
    async def delete_schema(topic: str) -> None:
        """Forget all versions: the next one is taken as it is."""
        await parts.get_schemas().delete(topic)

    return router

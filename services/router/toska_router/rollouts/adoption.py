"""Having the route itself lead to the canary, once that has everything."""

from collections.abc import Sequence

import structlog
from toska_common.contracts.routing import Route, RouteTable, WeightedCluster
from toska_common.errors import MeshError, PreconditionFailed

from toska_router.book import RoutesBook
from toska_router.documents import Change
from toska_router.rollouts.changes import find_route
from toska_router.runs.book import RunsBook
from toska_router.runs.overlays import why_not
from toska_router.runs.records import RolloutRecord
from toska_router.sources import Sources
from toska_router.stored import Author

log = structlog.get_logger(__name__)


def wants_adoption(record: RolloutRecord, book: RunsBook, table: RouteTable) -> bool:
    """Whether the route itself is to be changed, now that the canary has everything."""
    rollout = record.rollout
    if record.phase != "succeeded" or record.released or rollout.at_end != "adopt" or not book.is_own(rollout.route):
        return False
    return why_not(record, find_route(table, rollout.route), table) == ""


async def adopt(book: RoutesBook, record: RolloutRecord) -> None:
    """Have the route lead to the canary, as a change like any other, that history tells of.

    What an operator has written in the meantime holds: it is looked at in the moment of the change.
    """
    name = record.rollout.route

    def propose(sources: Sources) -> Sequence[Change]:
        route = sources.find("route", name)
        if not isinstance(route, Route) or route.to != record.to:
            raise PreconditionFailed(f"the route {name} does not lead where it led when the rollout began")
        return [Change("route", name, adopted(route, record.rollout.canary))]

    by = record.rollout.name
    try:
        await book.change(propose, Author(source="rollout", actor=by, reason=f"the rollout {by} has succeeded"))
    except MeshError as error:  # its overlay goes on standing for the route, and the next look tries again
        log.warning("rollout_not_adopted", rollout=by, reason=error.detail)


def adopted(route: Route, canary: str) -> Route:
    """The route as an operator would write it who sends everything to the canary."""
    kept = tuple(part for part in route.to if part.when is not None)
    return route.model_copy(update={"to": (*kept, WeightedCluster(cluster=canary))})

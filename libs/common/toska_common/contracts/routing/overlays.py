"""What stands for a route's own words for a while, as the router's API shows it."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from toska_common.contracts import Contract
from toska_common.contracts.routing.splits import WeightedCluster


class RouteOverlay(Contract):
    """What stands for a route's own words for a while."""

    kind: Literal["rollout", "experiment"]
    name: str
    says: str
    to: tuple[WeightedCluster, ...] = Field(default=(), description="Where a rollout has it lead")
    until: datetime | None = Field(default=None, description="When an experiment ends at the latest")

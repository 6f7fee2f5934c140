"""The routing in force: which snapshot is served, where it came from, and the one way to change it.

router ─┐
store ──┼──▶ apply ── checks ──▶ system routes in front ──▶ data plane ──▶ current
file ───┘                 └──▶ SnapshotRejected: nothing has changed
"""

from collections.abc import Callable
from typing import Literal

import anyio
import structlog
from anyio import to_thread
from toska_common.contracts.routing import RouteTable, Snapshot
from toska_common.contracts.tallies import TallyReport
from toska_common.routing.checks import check_document, is_needed, is_right_among
from toska_common.routing.order import is_automatic
from toska_common.routing.problems import Finding, format_location
from toska_common.routing.table_index import index_of
from toska_common.routing.tables import FEW, compare
from toska_common.routing.versions import table_version

from toska_gateway.data_plane import DataPlane
from toska_gateway.errors import SnapshotRejected
from toska_gateway.system_routes import SystemRoutes

log = structlog.get_logger(__name__)

Source = Literal["none", "store", "router", "file"]


def empty_snapshot() -> Snapshot:
    """Routing that leads nowhere."""
    table = RouteTable()
    return Snapshot(routes_version=table_version(table), table=table)


class Routing:
    """Holds the snapshot that is served.

    Attributes:
        current: As it was given; `None` until there is one.
        served: As the data plane has it, with the mesh's own routes in front.
        source: Where the current one came from.
        on_change: Called after each change, with the current one.
    """

    def __init__(self, data_plane: DataPlane, system: SystemRoutes) -> None:
        self._data_plane = data_plane
        self._system = system
        self._changing = anyio.Lock()
        self.current: Snapshot | None = None
        self.served = system.put_in_front(empty_snapshot())
        self.source: Source = "none"
        self.on_change: list[Callable[[Snapshot], None]] = []

    async def open(self) -> None:
        """Serve the mesh's own routes, until there is a snapshot."""
        async with self._changing:
            await self._data_plane.apply(self.served)

    async def apply(self, snapshot: Snapshot, source: Source) -> None:
        """Serve `snapshot` from now on.

        Raises:
            SnapshotRejected: It cannot be served; the one before stays.
        """
        async with self._changing:
            problems = await self._check(snapshot)
            if problems:
                raise SnapshotRejected(problems)
            before = None if self.current is None else (self.current, self.served)
            served = self._system.put_in_front(snapshot, before)
            await self._data_plane.apply(served)
            self.current, self.served, self.source = snapshot, served, source
        log.info("snapshot_applied", version=snapshot.version, source=source, routes=len(snapshot.table.routes))
        for notify in self.on_change:
            notify(snapshot)

    async def _check(self, snapshot: Snapshot) -> list[dict[str, str]]:
        before = self.current
        if before is not None and len(compare(before.table, snapshot.table)) <= FEW:
            return check_change(before, snapshot)
        return await to_thread.run_sync(check_change, before, snapshot)  # others have this loop too

    def counted(self) -> TallyReport | None:
        """What was counted on routes under watch; `None` if there are none."""
        return self._data_plane.counted()

    def is_mesh_route(self, rank: int) -> bool:
        """Whether the route in this place is one of the mesh's own, which come first."""
        return rank < len(self._system.table.routes)


def check_change(before: Snapshot | None, after: Snapshot) -> list[dict[str, str]]:
    """The same as `check_snapshot`, of a snapshot that comes after a right one: only what has changed is looked at."""
    if before is None or after.table.clusters.keys() - after.endpoints.keys():
        return check_snapshot(after)
    if before.table is after.table:
        return []
    change, table = compare(before.table, after.table), after.table
    known, by_name = table.clusters, index_of(table).by_name
    gone = change.clusters - known.keys()
    if gone and is_needed(gone, table.routes, known):
        return check_snapshot(after)
    changed = [by_name[name] for name in change.routes if name in by_name]
    automatic = [route for route in changed if is_automatic(route)]
    operators = [route for route in changed if not is_automatic(route)]
    lost = any(name not in known for route in automatic for _, name in route.named_clusters())
    right = is_right_among(operators, {name: known[name] for name in change.clusters - gone}, [table], known)
    return [] if right and not lost else check_snapshot(after)


def check_snapshot(snapshot: Snapshot) -> list[dict[str, str]]:
    """Everything that is wrong with a snapshot as a whole; a router has checked it too, and may be another release."""
    table = snapshot.table
    # Automatic routes have names that operators may not give; `None` keeps their places in the findings.
    operators = [None if is_automatic(route) else route for route in table.routes]
    findings = check_document(operators, table.clusters, by_hand=False)
    for index, route in enumerate(table.routes):
        missing = [name for _, name in route.named_clusters() if name not in table.clusters]
        if is_automatic(route) and missing:
            findings.append(Finding(("routes", index, "to"), f'there is no cluster "{missing[0]}"'))
    for name in table.clusters.keys() - snapshot.endpoints.keys():
        findings.append(Finding(("endpoints", name), "the cluster has no list of endpoints, not even an empty one"))
    return [{"field": format_location(finding.location), "reason": finding.reason} for finding in findings]

"""Brings an Envoy from one configuration to another, in an order in which no request falls between them.

endpoints ──▶ clusters, old and new ──▶ routes ──▶ listeners, if they changed ──▶ (later) clusters that left go

What needs other filters comes as a route configuration of another name, which the new filters take over together with
their listener: so no request meets new filters with old routes, or the other way round. Each step waits until Envoy has
said that it took it, or refused it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import anyio
from toska_common.envoy import Resources

from toska_gateway.envoy.admin_socket import AdminSocket
from toska_gateway.envoy.config_files import ConfigFiles

Json = Mapping[str, Any]

LINGER_S: Final = 5.0
"""How long a cluster that no route names any more is kept, for requests that were routed before."""
_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 0.004
_LISTENERS: Final = "listener_manager.lds"
_CLUSTERS: Final = "cluster_manager.cds"
_WARMING: Final = "listener_manager.total_listeners_warming"
_REJECTED: Final = "update_rejected"
_VERSION: Final = "version_text"
_MANY: Final = 50
"""Of more changed clusters than this at once not each is asked for."""


class Refused(Exception):
    """Envoy did not take it; `what` is the kind of resource."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


class Feed:
    """What one Envoy has been told."""

    def __init__(self, files: ConfigFiles) -> None:
        self._files = files
        self._now = Resources()
        self._left: dict[str, tuple[Json, float]] = {}
        self._serial = 0

    def begin(self, resources: Resources) -> dict[str, str]:
        """Write everything, for an Envoy that is about to start; returns what `taken` asks for afterwards."""
        for name, assignment in resources.endpoints.items():
            self._files.write_endpoints(name, assignment)
        for name, routes in resources.routes.items():
            self._files.write_routes(name, routes)
        self._left.clear()
        self._now = resources
        return {
            _CLUSTERS: self._files.write_clusters(resources.clusters),
            _LISTENERS: self._files.write_listeners(resources.listeners),
        }

    async def begun(self, versions: Mapping[str, str], admin: AdminSocket) -> None:
        """Wait until an Envoy that was started has taken what was written.

        Raises:
            Refused: It did not, and is told to serve nothing.
        """
        try:
            await self._taken(admin, versions, {}, idle=_WARMING)
        except Refused:
            self.begin(Resources())
            raise

    async def push(self, resources: Resources, admin: AdminSocket) -> None:
        """Bring a running Envoy there.

        Raises:
            Refused: Envoy did not take something; everything is told as it was before.
        """
        before = self._now
        try:
            await self._advance(before, resources, admin)
        except Refused:
            self._restore(before, resources)
            raise
        self._now = resources

    async def _advance(self, before: Resources, after: Resources, admin: AdminSocket) -> None:
        refused = await self._refused(admin)
        waiting = self._write_endpoints(before, after)
        now = anyio.current_time()
        for name in before.clusters.keys() - after.clusters.keys():
            self._left[name] = before.clusters[name], now
        for name in after.clusters:
            self._left.pop(name, None)
        if before.clusters != after.clusters:
            version = self._write_clusters(after)
            await self._taken(admin, {_CLUSTERS: version}, refused, idle="cluster_manager.warming_clusters")
        waiting |= {
            f"http.edge.rds.{_stat(name)}": self._files.write_routes(name, routes)
            for name, routes in after.routes.items()
            if before.routes.get(name) != routes
        }
        if before.listeners != after.listeners:
            waiting[_LISTENERS] = self._files.write_listeners(after.listeners)
        await self._taken(admin, waiting, refused, idle=_WARMING)

    def _write_endpoints(self, before: Resources, after: Resources) -> dict[str, str]:
        written = {
            name: self._files.write_endpoints(name, assignment)
            for name, assignment in after.endpoints.items()
            if before.endpoints.get(name) != assignment
        }
        known = [name for name in written if name in before.clusters and name in before.endpoints]
        return {f"cluster.{_stat(name)}": written[name] for name in known[:_MANY]}

    def _write_clusters(self, after: Resources) -> str:
        return self._files.write_clusters({**{name: one for name, (one, _) in self._left.items()}, **after.clusters})

    async def _taken(
        self, admin: AdminSocket, versions: Mapping[str, str], refused: Mapping[str, int], *, idle: str
    ) -> None:
        """Wait until each of these was taken, and nothing is left that warms up."""
        if not versions:
            return
        names = "|".join(re.escape(name) for name in versions)
        pattern = rf"^(({names})\.({_VERSION}|{_REJECTED})|{re.escape(idle)})$"
        with anyio.move_on_after(_PATIENCE_S):
            while True:
                told = await admin.stats(pattern)
                for name in versions:
                    if int(told.get(f"{name}.{_REJECTED}", 0)) > refused.get(f"{name}.{_REJECTED}", 0):
                        raise Refused(name)
                taken = all(told.get(f"{name}.{_VERSION}") == version for name, version in versions.items())
                if taken and told.get(idle, "0") == "0":
                    return
                await anyio.sleep(_LOOK_S)
        raise Refused("nothing: it does not take it in time")

    async def _refused(self, admin: AdminSocket) -> dict[str, int]:
        told = await admin.stats(rf"{_REJECTED}$")
        return {name: int(count) for name, count in told.items()}

    def _restore(self, before: Resources, after: Resources) -> None:
        for name in before.clusters:
            self._left.pop(name, None)
        for name, assignment in before.endpoints.items():
            if after.endpoints.get(name) != assignment:
                self._files.write_endpoints(name, assignment)
        self._write_clusters(before)
        for name, routes in before.routes.items():
            self._files.write_routes(name, routes)
        self._files.write_listeners(before.listeners)

    def sweep(self, now: float) -> None:
        """Take away what left a while ago."""
        gone = [name for name, (_, left_at) in self._left.items() if left_at <= now - LINGER_S]
        if not gone:
            return
        for name in gone:
            del self._left[name]
        self._write_clusters(self._now)
        for name in gone:
            self._files.remove("endpoints", name)


def _stat(name: str) -> str:
    """A name as it stands in names of statistics."""
    return name.replace(":", "_")

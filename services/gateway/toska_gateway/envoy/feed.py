"""Brings an Envoy from one configuration to another, in an order in which no request falls between them.

clusters, old and new ──▶ endpoints ──▶ routes and listeners, if they changed ──▶ (later) clusters that left go

What needs other filters comes as a route configuration of another name, which the new filters take over together with
their listener: so no request meets new filters with old routes, or the other way round. Each step waits until Envoy has
said that it took it, or refused it.
"""

from collections.abc import Mapping
from typing import Any, Final

import anyio
from toska_common.envoy import Resources
from toska_common.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES

from toska_gateway.envoy.ads import AdsServer, Refused
from toska_gateway.envoy.process import EnvoyProcess

Json = Mapping[str, Any]

LINGER_S: Final = 5.0
"""How long what nothing names any more is kept, for requests that were routed before."""
_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 0.002
_WARMING: Final = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")


class Feed:
    """What Envoy has been told."""

    def __init__(self, ads: AdsServer) -> None:
        self._ads = ads
        self._now = Resources()
        self._left: dict[str, tuple[Json, float]] = {}
        self._left_routes: dict[str, float] = {}

    async def begin(self, resources: Resources) -> None:
        """Have everything ready for an Envoy that is about to start."""
        self._left.clear()
        for kind, found in resources.by_type().items():
            await self._ads.put(kind, found)
        self._now = resources

    async def replace(self, resources: Resources) -> None:
        """Have everything different for Envoys of which none is known to serve; one that starts may have been told."""
        await self.begin(resources)
        self._send_all()

    async def begun(self, process: EnvoyProcess) -> None:
        """Wait until an Envoy that was started has taken everything.

        Raises:
            Refused: It did not, and is told to serve nothing.
        """
        await self._settled(process)
        if refusals := self._ads.refusals(process.node):
            await self.begin(Resources())
            self._ads.send(CLUSTER)
            self._ads.send(LISTENER)
            raise Refused(refusals[0])

    async def push(self, resources: Resources, process: EnvoyProcess) -> None:
        """Bring a running Envoy there.

        Raises:
            Refused: Envoy did not take something; everything is told as it was before.
        """
        before = self._now
        try:
            with anyio.fail_after(_PATIENCE_S):
                await self._advance(before, resources, process)
        except (Refused, TimeoutError) as error:
            await self._restore(before)
            raise error if isinstance(error, Refused) else Refused("it does not take it in time") from error
        self._now = resources

    async def _advance(self, before: Resources, after: Resources, process: EnvoyProcess) -> None:
        now = anyio.current_time()
        self._left |= {name: (before.clusters[name], now) for name in before.clusters.keys() - after.clusters.keys()}
        self._left_routes |= dict.fromkeys(before.routes.keys() - after.routes.keys(), now)
        for name in after.clusters:
            self._left.pop(name, None)
        for name in after.routes:
            self._left_routes.pop(name, None)
        moved = _changed(before.endpoints, after.endpoints)
        await self._ads.put(ENDPOINTS, {name: after.endpoints[name] for name in moved}, whole=False)
        await self._ads.put(ROUTES, _parts(after.routes, _changed(before.routes, after.routes)), whole=False)
        changed = _changed(before.clusters, after.clusters)
        if before.clusters != after.clusters:
            await self._put_clusters(after)
            await self._send(CLUSTER, None, process)
        # A cluster that has changed waits for its endpoints, though they are what they were.
        if again := moved | (changed & after.endpoints.keys()):
            await self._send(ENDPOINTS, again, process)
        if rerouted := _changed(before.routes, after.routes):
            await self._send(ROUTES, rerouted, process)
        if before.listeners != after.listeners:
            await self._ads.put(LISTENER, after.listeners)
            await self._send(LISTENER, None, process)
        if before.clusters != after.clusters or before.listeners != after.listeners:
            await self._settled(process)
            if refusals := self._ads.refusals(process.node):
                raise Refused(refusals[0])

    async def _send(self, kind: str, names: set[str] | None, process: EnvoyProcess) -> None:
        nonce = self._ads.send(kind, names).get(process.node)
        if nonce is not None:
            await self._ads.taken(kind, process.node, nonce)

    async def _put_clusters(self, after: Resources) -> None:
        await self._ads.put(CLUSTER, {**{name: one for name, (one, _) in self._left.items()}, **after.clusters})

    async def _settled(self, process: EnvoyProcess) -> None:
        """Wait until nothing of Envoy's is warming up."""
        pattern = f"^({'|'.join(_WARMING)})$"
        with anyio.move_on_after(_PATIENCE_S):
            while not self._ads.refusals(process.node):
                told = await process.admin.stats(pattern)
                if all(told.get(name, "0") == "0" for name in _WARMING):
                    return
                await anyio.sleep(_LOOK_S)

    async def _restore(self, before: Resources) -> None:
        for name in before.clusters:
            self._left.pop(name, None)
        for kind, found in before.by_type().items():
            await self._ads.put(kind, found, whole=kind != CLUSTER)
        await self._put_clusters(before)
        self._send_all()

    def _send_all(self) -> None:
        for kind in (CLUSTER, ENDPOINTS, ROUTES, LISTENER):
            self._ads.send(kind)

    async def sweep(self, now: float) -> None:
        """Take away what left a while ago."""
        routes = [name for name, left_at in self._left_routes.items() if left_at <= now - LINGER_S]
        for name in routes:
            del self._left_routes[name]
        self._ads.remove(ROUTES, routes)
        gone = [name for name, (_, left_at) in self._left.items() if left_at <= now - LINGER_S]
        if gone:
            for name in gone:
                del self._left[name]
            await self._put_clusters(self._now)
            self._ads.send(CLUSTER)
            self._ads.remove(ENDPOINTS, gone)


def _changed(before: Mapping[str, Json], after: Mapping[str, Json]) -> set[str]:
    return {name for name, resource in after.items() if before.get(name) != resource}


def _parts(resources: Mapping[str, Json], names: set[str]) -> dict[str, Json]:
    return {name: resources[name] for name in names}

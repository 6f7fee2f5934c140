"""Where Envoy may connect to: names are looked up here, and what the mesh does not go to is left out.

Envoy is told addresses only, so that a name cannot come to mean the cloud's metadata or the mesh's own management.
"""

import socket
from asyncio import get_running_loop
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import structlog
from toska_common.contracts.names import is_unix
from toska_common.contracts.routing import Cluster, ClusterEndpoints, Endpoint, Snapshot
from toska_common.envoy.endpoints import is_name
from toska_common.targets import TargetRules

from toska_gateway.wire import owned_by_the_mesh

log = structlog.get_logger(__name__)

LOOK_UP_EVERY_S: Final = 5.0
_PATIENCE_S: Final = 5.0
_AT_ONCE: Final = 16


class Targets:
    """Addresses of names, and the rules."""

    def __init__(self, rules: TargetRules) -> None:
        self._rules = rules
        self._known: dict[str, tuple[str, ...]] = {}
        self._said: set[tuple[str, str]] = set()

    async def look_up(self, snapshot: Snapshot) -> bool:
        """Look every name up; tells whether any leads elsewhere than before. One that fails stays where it was."""
        names = {
            endpoint.address
            for cluster in snapshot.endpoints.values()
            for endpoint in cluster.endpoints
            if is_name(endpoint.address)
        }
        before = {name: self._known.get(name) for name in names}
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(self._look_up_one, name, limiter)
        self._known = {name: self._known.get(name, ()) for name in names}
        return any(before[name] != self._known[name] for name in names)

    async def _look_up_one(self, name: str, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            with anyio.move_on_after(_PATIENCE_S):
                try:
                    found = await get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
                except (OSError, UnicodeError) as error:
                    self._say(name, str(error), "endpoint_name_not_found")
                    return
                self._known[name] = tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def addresses(self, endpoint: Endpoint) -> Sequence[str]:
        """Where an endpoint with a name is."""
        return self._known.get(endpoint.address, ())

    def allowed(self, snapshot: Snapshot) -> Mapping[str, ClusterEndpoints]:
        """The endpoints that may be connected to."""
        own = owned_by_the_mesh(snapshot.table.clusters)
        return {
            name: cluster
            if name in own
            else cluster.model_copy(update={"endpoints": self._allowed(snapshot.table.clusters[name], cluster)})
            for name, cluster in snapshot.endpoints.items()
            if name in snapshot.table.clusters
        }

    def _allowed(self, cluster: Cluster, known: ClusterEndpoints) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in known.endpoints if self._may(cluster, endpoint))

    def _may(self, cluster: Cluster, endpoint: Endpoint) -> bool:
        if is_unix(endpoint.address):
            # What a registry says must not make us talk to a daemon of this machine.
            refusal = None if cluster.endpoints else "only an operator's cluster may lead to a Unix socket"
            return self._judged(endpoint, refusal)
        addresses = self.addresses(endpoint) if is_name(endpoint.address) else (endpoint.address,)
        refusals = [self._rules.refusal(address, endpoint.port) for address in addresses]
        return self._judged(endpoint, next((refusal for refusal in refusals if refusal is not None), None))

    def _judged(self, endpoint: Endpoint, refusal: str | None) -> bool:
        if refusal is not None:
            self._say(endpoint.key, refusal, "endpoint_refused")
        return refusal is None

    def _say(self, place: str, reason: str, event: str) -> None:
        if (place, reason) not in self._said:  # once, and not with every change
            self._said.add((place, reason))
            log.warning(event, endpoint=place, reason=reason)

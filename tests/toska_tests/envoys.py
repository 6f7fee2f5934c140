"""Envoy data planes for tests: a real Envoy behind the gateway's own engine."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any

from toska_common.contracts.gateway_stats import GatewayStats
from toska_gateway.envoy.plane import EnvoyDataPlane
from toska_gateway.listeners import parse_listener

from toska_tests.gateways import NOTHING, snapshot_of

_HERE = Path()


class EnvoyGateway:
    """A running Envoy."""

    def __init__(self, plane: EnvoyDataPlane) -> None:
        self.plane = plane

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.plane.address

    def port(self, listener: int) -> int:
        """Where one of several listeners is, in the order in which they were given."""
        return int(self.plane.urls[listener].rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the process that serves; 0 while there is none."""
        return next((one.pid for one in self.plane.workers() if one.state == "running"), 0)

    async def stats(self) -> GatewayStats:
        """What was counted."""
        return await self.plane.stats()

    @staticmethod
    def news(before: GatewayStats, after: GatewayStats, route: str) -> dict[str, int]:
        """How many answers of a route came between two readings, by status."""
        old = {name: count for one in before.routes if one.name == route for name, count in one.statuses.items()}
        new = {name: count for one in after.routes if one.name == route for name, count in one.statuses.items()}
        return {name: more for name, count in new.items() if (more := count - old.get(name, 0))}

    async def serve(self, document: Mapping[str, Any]) -> None:
        """Put a routing document in force."""
        await self.plane.apply(snapshot_of(document))


@contextlib.asynccontextmanager
async def running_envoy(
    document: Mapping[str, Any] = NOTHING,
    *,
    threads: int = 1,
    listen: Iterable[str] = ("127.0.0.1:0",),
    folder: Path = _HERE,
    management: Iterable[tuple[str, int]] = (),
    drain_s: float = 5,
) -> AsyncGenerator[EnvoyGateway]:
    """A data plane of a real Envoy."""
    listeners = [parse_listener(text) for text in listen]
    plane = EnvoyDataPlane(listeners, threads, management, tls_folder=folder, drain_s=drain_s)
    async with plane.run():
        gateway = EnvoyGateway(plane)
        await gateway.serve(document)
        yield gateway

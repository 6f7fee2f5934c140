"""What all calls of a process go out through: its connections, and what it knows of the services.

While the app runs, both live in its lifespan and services are followed in the background. Before and without one (a
script, a test of a handler) they are made at the first call and services are asked for when needed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio.abc import TaskGroup

from toska_common.breaker import BreakerPolicy
from toska_common.mesh.calls import CallMetrics
from toska_common.mesh.location import Location
from toska_common.mesh.registry import RegistryLink
from toska_common.mesh.resolver import Resolver

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from toska_common.mesh.pool import ConnectionPool


class Ways:
    """The way to endpoints and to their addresses, in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: RegistryLink, resolver: Resolver) -> None:
        self.loop = loop
        self.link = link
        self.resolver = resolver
        self._pool: ConnectionPool | None = None

    @property
    def pool(self) -> "ConnectionPool":
        """The connections; made when first used, since many an app calls nobody and httpx takes 0.3 s to import."""
        if self._pool is None:
            from toska_common.mesh.pool import ConnectionPool

            self._pool = ConnectionPool()
        return self._pool

    async def aclose(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await self._pool.aclose()
        await self.link.aclose()


class Outbound:
    """The outgoing side of one service.

    Args:
        caller: Its name.
        locate: Finds the registry.
        breaker: When an endpoint's circuit opens.
        metrics: Where calls are counted.
        tracer: Where spans of calls go.
        zone: Where it runs itself; empty if nobody said.
    """

    def __init__(
        self,
        caller: str,
        locate: Callable[[], Location],
        breaker: BreakerPolicy,
        metrics: CallMetrics,
        tracer: "TracerProvider | None",
        zone: str = "",
    ) -> None:
        self._zone = zone
        self.caller = caller
        self.metrics = metrics
        self.tracer = tracer
        self._locate = locate
        self._breaker = breaker
        self._ways: Ways | None = None

    def ways(self) -> Ways:
        """The ways of the running event loop; made if there are none."""
        loop = asyncio.get_running_loop()
        if self._ways is None or self._ways.loop is not loop:
            self._ways = self._build(loop, RegistryLink(self._locate), None)
        return self._ways

    @asynccontextmanager
    async def opened(self, group: TaskGroup) -> AsyncGenerator[RegistryLink]:
        """Follow services in `group` while the block runs; yields the link to the registry."""
        await self.aclose()
        ways = self._ways = self._build(asyncio.get_running_loop(), RegistryLink(self._locate), group)
        try:
            yield ways.link
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close what was opened in this event loop."""
        ways, self._ways = self._ways, None
        if ways is not None and ways.loop is asyncio.get_running_loop():
            await ways.aclose()

    def _build(self, loop: asyncio.AbstractEventLoop, link: RegistryLink, group: TaskGroup | None) -> Ways:
        return Ways(loop, link, Resolver(link, self._breaker, group, self._zone))

"""Opening connections to endpoints: resolve, refuse forbidden targets, connect within a timeout.

This is the one place of the data plane with a task: connections are few, and requests on pooled ones never come here.
"""

import asyncio
import socket
from ipaddress import ip_address
from time import perf_counter
from typing import TYPE_CHECKING

from toska_common.targets import TargetRules

from toska_gateway.worker.attempt import Attempt, failure_of
from toska_gateway.worker.endpoint import UNIX_PREFIX, Endpoint, TargetRefused
from toska_gateway.worker.upstream import Upstream

if TYPE_CHECKING:
    from toska_gateway.worker.caller import Opener
    from toska_gateway.worker.plane import Plane


class Connector:
    """Connects endpoints for exchanges; a connection whose exchange is gone by then is kept for the next."""

    def __init__(self, plane: "Plane", rules: TargetRules) -> None:
        self._plane = plane
        self.rules = rules
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self, endpoint: Endpoint, opener: "Opener") -> None:
        """Open a connection to `endpoint` for `opener`, which is told how it went."""
        cluster = endpoint.cluster
        cluster.connections += 1
        endpoint.connecting += 1
        endpoint.count()
        task = self._plane.loop.create_task(self._connect(endpoint, opener))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, endpoint: Endpoint, opener: "Opener") -> None:
        plane = self._plane
        cluster = endpoint.cluster
        begun = perf_counter()
        try:
            async with asyncio.timeout(opener.connect_timeout):
                upstream = await self._open(endpoint)
        except (OSError, ValueError, TargetRefused) as error:  # (ValueError: a name that cannot be encoded)
            endpoint.connecting -= 1
            cluster.connections -= 1
            reason = _reason(error)
            endpoint.stats.not_connected(reason)
            if opener.trace is not None:
                opener.trace.connect_failed(endpoint, reason, begun)
            if not isinstance(error, TargetRefused):
                plane.stats.connect_failures += 1
                if cluster.connect_failed(endpoint, plane.loop.time()):
                    plane.stats.ejections += 1
            opener.connect_failed(endpoint, error)
            if cluster.pending:
                plane.connection_freed(cluster)
            return
        endpoint.connecting -= 1
        endpoint.stats.connected(perf_counter() - begun)
        cluster.connected(endpoint, plane.now)
        if upstream.closed:  # in the moment before we had it, and it has freed its place itself
            opener.connect_failed(endpoint, upstream.error or ConnectionResetError())
        elif opener.wants(endpoint):
            opener.send_on(upstream)
        else:
            upstream.release()

    async def _open(self, endpoint: Endpoint) -> Upstream:
        if not endpoint.port:
            return await self._open_unix(endpoint)
        failure = OSError("the name has no address")
        for family, address in await self._resolve(endpoint):
            refusal = None if endpoint.cluster.mesh_owned else self.rules.refusal(address, endpoint.port)
            if refusal is not None:
                raise TargetRefused(refusal)
            attempt = Attempt(self._plane, endpoint)
            try:
                await self._plane.loop.create_connection(attempt.protocol, address, endpoint.port, family=family)
                return await attempt.upstream()
            except OSError as error:
                failure = error
        try:
            raise failure
        finally:
            del failure  # it knows this frame by its traceback: a cycle for the collector with every failed connection

    async def _open_unix(self, endpoint: Endpoint) -> Upstream:
        # What a registry says must not make us talk to a daemon of this machine.
        if not (endpoint.cluster.fixed or endpoint.cluster.mesh_owned):
            raise TargetRefused("only an operator's cluster may lead to a Unix socket")
        attempt = Attempt(self._plane, endpoint)
        path = endpoint.address.removeprefix(UNIX_PREFIX)
        await self._plane.loop.create_unix_connection(attempt.protocol, path)
        return await attempt.upstream()

    async def _resolve(self, endpoint: Endpoint) -> list[tuple[int, str]]:
        # The rules see the very address that is connected to, so a name cannot resolve to another one in between.
        try:
            version = ip_address(endpoint.address).version
        except ValueError:
            found = await self._plane.loop.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
            return [(family, str(address[0])) for family, *_, address in found]
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, endpoint.address)]


def _reason(error: BaseException) -> str:
    """Why a connection was not made, for a label."""
    if isinstance(error, TargetRefused):
        return "refused_target"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if failure_of(error) is not None:
        return "tls"
    return "name" if isinstance(error, socket.gaierror | ValueError) else "unreachable"

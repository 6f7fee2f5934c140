"""Services that a test calls: instances of a few lines, which answer as it wants, in the registry."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
from anyio.abc import Listener, SocketAttribute, SocketStream, TaskGroup
from fastapi import FastAPI
from toska_common import Mesh
from toska_common.breaker import BreakerPolicy
from toska_common.clients.consul import (
    ConsulClient,
    ServiceRegistration,
    TTLCheck,
)
from toska_common.contracts.discovery import Health

from toska_tests.joined import Registry

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: seen=yes\r\n\r\nok"


JSON = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


TRUNCATED = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"


class Upstream:
    """An instance that answers every request with the same bytes, closes without any, or never answers."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.close = False
        self.requests: list[str] = []
        self.port = 0
        self.scope = anyio.CancelScope()

    async def stop(self) -> None:
        """End it, with its connections."""
        self.scope.cancel()
        await anyio.wait_all_tasks_blocked()

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection."""
        async with stream:
            received = b""
            async for chunk in stream:
                received += chunk
                head, end, _ = received.partition(b"\r\n\r\n")
                if not end:
                    continue
                received = b""
                self.requests.append(head.decode())
                if self.answer is None:
                    await anyio.sleep_forever()
                elif not self.answer:
                    return
                else:
                    await stream.send(self.answer)
                if self.close:
                    return


async def _serve(listener: Listener[SocketStream], upstream: Upstream) -> None:
    with upstream.scope:
        async with listener:
            await listener.serve(upstream.serve)


class Services:
    """Instances that a test starts and registers by itself."""

    def __init__(self, consul: ConsulClient, registry: Registry, group: TaskGroup) -> None:
        self._consul = consul
        self._registry = registry
        self._group = group
        self._meshes: list[Mesh] = []

    async def start(self, service: str, answer: bytes | None = ANSWER, *, health: Health = Health.PASSING) -> Upstream:
        """Start an instance of `service`."""
        upstream = Upstream(answer)
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        upstream.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
        self._group.start_soon(_serve, listener, upstream)
        await self.register(service, upstream.port, health=health)
        return upstream

    async def register(
        self, service: str, port: int, *, address: str = "127.0.0.1", health: Health = Health.PASSING
    ) -> None:
        """Register an instance that is already there, or is not."""
        check = TTLCheck(timedelta(minutes=1), status=health)
        await self._consul.register_service(
            ServiceRegistration(service, id=f"{service}-{port}", address=address, port=port, checks=(check,))
        )

    def mesh(self, *, breaker: BreakerPolicy | None = None) -> Mesh:
        """A mesh for a caller that is no running app."""
        return self.app(breaker=breaker)[1]

    def app(self, *, breaker: BreakerPolicy | None = None) -> tuple[FastAPI, Mesh]:
        """An app and its mesh."""
        app = FastAPI()
        mesh = Mesh(app, name="caller", registry_url=self._registry.url, breaker=breaker)
        self._meshes.append(mesh)
        return app, mesh

    async def aclose(self) -> None:
        """Close what the callers hold."""
        for mesh in self._meshes:
            await mesh.aclose()


@asynccontextmanager
async def called_services(registry: Registry) -> AsyncGenerator[Services]:
    """Services in this registry, gone after the block."""
    async with (
        ConsulClient.open(registry.url, token=registry.join_token) as consul,
        anyio.create_task_group() as group,
    ):
        services = Services(consul, registry, group)
        yield services
        await services.aclose()
        group.cancel_scope.cancel()

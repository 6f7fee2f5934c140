"""The mesh's services in this process, on real sockets; each can be started and stopped by itself."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from aiohttp import web
from anyio.abc import TaskGroup, TaskStatus
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.contracts.discovery import META_EXPOSE, META_OPENAPI
from toska_common.credentials import Credentials, ensure_credentials
from toska_common.server import Service, bind, serve

from toska_tests.clients import http_client
from toska_tests.ports import free_ports
from toska_tests.waiting import PATIENT_S, wait_until

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(service: Service) -> AsyncGenerator[anyio.CancelScope]:
    """Run a service on its own sockets until the block ends, or the scope is cancelled."""
    with ExitStack() as stack:
        sockets = {item.name: stack.enter_context(bind(item.host, item.port)) for item in service.listeners}
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def run(*, task_status: TaskStatus[None]) -> None:
                with scope:
                    await serve(service, sockets, task_status=task_status)

            await group.start(run)
            yield scope
            scope.cancel()


class ControlMesh:
    """Discovery, router and gateway of one home, and instances that a test registers."""

    def __init__(self, home: Path, group: TaskGroup, client: httpx.AsyncClient) -> None:
        self.home = home
        self.first = free_ports(6)
        self.http = client
        """Follows no redirects and has no token."""
        self._group = group
        self._stops: dict[str, tuple[anyio.Event, anyio.Event]] = {}

    @property
    def data(self) -> str:
        """Base URL of the data listener."""
        return self._url(0)

    @property
    def admin(self) -> str:
        """Base URL of the gateway's admin API."""
        return self._url(1)

    @property
    def discovery(self) -> str:
        """Base URL of discovery's REST API."""
        return self._url(2)

    @property
    def registry(self) -> str:
        """Base URL of the Consul API."""
        return self._url(3)

    @property
    def router(self) -> str:
        """Base URL of the router."""
        return self._url(4)

    def _url(self, offset: int) -> str:
        return f"http://127.0.0.1:{self.first + offset}"

    @property
    def credentials(self) -> Credentials:
        """The mesh's tokens."""
        return ensure_credentials(self.home)

    def bearer(self, access: str = "admin") -> dict[str, str]:
        """The header with one of the tokens."""
        token = self.credentials.admin if access == "admin" else self.credentials.join
        return {"authorization": f"Bearer {token}"}

    async def start_discovery(self) -> None:
        """Start discovery with its embedded registry."""
        from toska_discovery.app import create_service
        from toska_discovery.settings import Settings

        first = self.first
        settings = Settings(home=self.home, port=first + 2, consul_port=first + 3, dns_port=-1, grpc_port=-1)
        await self._start("discovery", create_service(settings))

    async def start_router(self, **options: Any) -> None:
        """Start the router."""
        from toska_router.app import create_service
        from toska_router.settings import Settings

        settings = Settings(home=self.home, port=self.first + 4, registry_url=self.registry, **options)
        await self._start("router", create_service(settings))

    async def start_events(self) -> None:
        """Start the events service with its log."""
        from toska_events.app import create_service
        from toska_events.settings import Settings

        settings = Settings(home=self.home, port=self.first + 5, grpc_port=-1, registry_url=self.registry)
        await self._start("events", create_service(settings))

    async def start_gateway(self, **options: Any) -> None:
        """Start the gateway with one worker."""
        from toska_gateway.app import create_service
        from toska_gateway.settings import Settings

        given: dict[str, Any] = {
            "home": self.home,
            "port": self.first,
            "admin_port": self.first + 1,
            "workers": 1,
            "router_url": self.router,
            "discovery_url": self.discovery,
            "events_api_url": self._url(5),
            "registry_url": self.registry,
        }
        await self._start("gateway", create_service(Settings(**{**given, **options})))

    async def _start(self, name: str, service: Service) -> None:
        stop, ended = self._stops[name] = (anyio.Event(), anyio.Event())

        async def run(*, task_status: TaskStatus[None]) -> None:
            try:
                async with serving(service):
                    task_status.started()
                    await stop.wait()
            finally:
                ended.set()

        await self._group.start(run)

    async def stop(self, name: str) -> None:
        """Stop a service, and wait until it has ended."""
        stop, ended = self._stops.pop(name)
        stop.set()
        await ended.wait()

    async def stop_all(self) -> None:
        """Stop what runs: the registry last, so that everything can take its registration back."""
        for name in sorted(self._stops, key=("gateway", "router", "events", "discovery").index):
            await self.stop(name)

    async def register(self, service: str, port: int, **options: Any) -> None:
        """Register an instance on this machine that asks for an automatic route and has an OpenAPI document."""
        meta = {META_EXPOSE: "true", META_OPENAPI: "/openapi.json", **options.pop("meta", {})}
        registration = ServiceRegistration(
            name=service,
            id=options.pop("id", f"{service}-{port}"),
            address=options.pop("address", "127.0.0.1"),
            port=port,
            meta={key: value for key, value in meta.items() if value},
            **options,
        )
        async with ConsulClient.open(self.registry, token=self.credentials.join) as consul:
            await consul.register_service(registration)

    async def deregister(self, instance_id: str) -> None:
        """Take an instance off the registry."""
        async with ConsulClient.open(self.registry, token=self.credentials.join) as consul:
            await consul.deregister_service(instance_id)

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """A GET."""
        return await self.http.get(url, **options)

    async def until_answered(self, url: str, status: int = 200, *, within: float = PATIENT_S) -> httpx.Response:
        """Ask until the answer has this status."""
        answers: list[httpx.Response] = []

        async def has_status() -> bool:
            try:
                answers[:] = [await self.http.get(url)]
            except httpx.TransportError:
                return False
            return answers[0].status_code == status

        await wait_until(has_status, within=within, what=f"{url} answers {status}")
        return answers[0]


@asynccontextmanager
async def control_mesh(home: Path, *parts: str, **gateway: Any) -> AsyncGenerator[ControlMesh]:
    """A mesh of these parts (`discovery`, `router`, `events`, `gateway`), started in this order."""
    async with http_client() as client, anyio.create_task_group() as group:
        mesh = ControlMesh(home, group, client)
        try:
            for part in parts:
                await getattr(mesh, f"start_{part}")(**(gateway if part == "gateway" else {}))
            yield mesh
        finally:
            with anyio.CancelScope(shield=True):
                await mesh.stop_all()


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncGenerator[int]:
    """A server of the test's own, where one function answers everything; yields its port."""
    server = web.Server(handler)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    try:
        with bind("127.0.0.1", 0) as sock:
            site = web.SockSite(runner, sock)
            await site.start()
            yield sock.getsockname()[1]
    finally:
        await runner.cleanup()

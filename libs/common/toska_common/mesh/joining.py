"""`Mesh`: what the author of an app writes. It reads the settings, makes the parts and puts them on the app."""

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from toska_common import problem, telemetry
from toska_common.breaker import BreakerPolicy
from toska_common.clients.consul import ServiceRegistration
from toska_common.contracts.discovery import META_OPENAPI, META_SAGAS, SAGAS_ROUTE
from toska_common.errors import ConfigurationError
from toska_common.health import CheckFunction, HealthChecks
from toska_common.logging import configure_logging
from toska_common.mesh import fitting
from toska_common.mesh.calls import CallMetrics
from toska_common.mesh.exchanges import Exchanges
from toska_common.mesh.grpc_health import require_grpc, serve_grpc_health
from toska_common.mesh.introducing import Introduction, check_name
from toska_common.mesh.location import Location, locate
from toska_common.mesh.measuring import Measuring
from toska_common.mesh.middleware import ForwardedPrefix, MeshMiddleware
from toska_common.mesh.outbound import Outbound
from toska_common.mesh.presence import Presence
from toska_common.mesh.settings import MeshSettings

if TYPE_CHECKING:
    from toska_common.events.bus import EventBus
    from toska_common.events.codecs import Codec
    from toska_common.events.payload import EventPayload
    from toska_common.mesh.client import MeshClient


class Mesh:
    """Joins a FastAPI app to a mesh: `mesh = Mesh(app, name="orders")`.

    The app is listed in the registry while it runs, gets `/health/…` and `/metrics`, answers errors as problem details,
    keeps its URLs right behind a gateway's prefix, and calls other services by `mesh.client("payments")`. Nothing of
    this happens at import: an app under a test client does not register. See docs/sdk.md.

    Args:
        app: The app; routes, handlers and middleware may still be added afterwards.
        name: Of the service, a DNS label such as `orders`.
        expose: Whether the gateway gives it a route `/orders/…`; by default what the mesh says, which is yes only on a
            laptop.
        tags: For whoever looks for instances.
        metadata: For the same, up to 48 short strings by key.
        routes: Routes below `/{name}` that it wants of the gateway, each with a `name`, a `match` and `policies`, in
            the words of a routing file; operators' routes go before them.
        version: Of the service; the app's own by default.
        weight: Its share of requests among its siblings.
        region: Where it runs, for callers that look for near ones.
        zone: Likewise, more exactly; calls of this app go to instances of its zone while those can carry them.
        depends_on: Services that it calls, for the mesh's picture of itself.
        capabilities: What it can do, for callers that look for that.
        profile: Whatever else a registration can say: `type`, `protocols`, `features`, `track`, `priority`,
            `health_path`, `resources`, `sla`.
        capacity: Requests at a time that it can serve well; its share of traffic falls when there are more.
        checks: Named readiness checks, async or not; more can be added to `mesh.health`.
        registry_url: Instead of the mesh that is found.
        advertise_address: Address to give to others, instead of the one that is found.
        advertise_port: Port to give to others, likewise.
        lease_ttl: Life of an unrenewed lease.
        drain_delay: Time between leaving the mesh and closing the listener.
        shutdown_grace: How long requests in flight may then take.
        trusted_proxies: Networks, besides loopback, whose `X-Forwarded-Prefix` is believed.
        grpc_health_port: Serve the gRPC health protocol there (extra `grpc`).
        breaker: When the circuit to an instance of another service opens.
        problems: Whether errors are answered as problem details where the app has no handler of its own.
        logs: Whether to set up logging, where nobody has.

    Raises:
        ConfigurationError: An argument or a `TOSKA_…` variable is wrong; says which and why.
    """

    def __init__(
        self,
        app: FastAPI,
        name: str,
        *,
        expose: bool | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        routes: Sequence[Mapping[str, Any]] = (),
        version: str | None = None,
        weight: int = 1,
        region: str | None = None,
        zone: str | None = None,
        depends_on: Sequence[str] = (),
        capabilities: Sequence[str] = (),
        profile: Mapping[str, Any] | None = None,
        capacity: int | None = None,
        checks: Mapping[str, CheckFunction] | None = None,
        registry_url: str | None = None,
        advertise_address: str | None = None,
        advertise_port: int | None = None,
        lease_ttl: timedelta | None = None,
        drain_delay: timedelta | None = None,
        shutdown_grace: timedelta | None = None,
        trusted_proxies: Sequence[str] | None = None,
        grpc_health_port: int | None = None,
        breaker: BreakerPolicy | None = None,
        problems: bool = True,
        logs: bool = True,
    ) -> None:
        self._settings = MeshSettings.from_environment(
            expose=expose,
            region=region,
            zone=zone,
            registry_url=registry_url,
            advertise_address=advertise_address,
            advertise_port=advertise_port,
            lease_ttl=lease_ttl,
            drain_delay=drain_delay,
            shutdown_grace=shutdown_grace,
            trusted_proxies=None if trusted_proxies is None else tuple(trusted_proxies),
        )
        if capacity is not None and capacity < 1:
            raise ConfigurationError(f"Mesh(name={name!r}): capacity: must be at least 1")
        self.name = name
        self.version = version or app.version
        self._introduction = Introduction.build(
            name,
            self.version,
            routes=routes,
            profile=profile or {},
            tags=tuple(tags),
            metadata=metadata or {},
            weight=weight,
            region=self._settings.region,
            zone=self._settings.zone,
            depends_on=tuple(depends_on),
            capabilities=tuple(capabilities),
        )
        self._app = app
        self._problems = problems
        self._grpc_health_port = grpc_health_port
        if grpc_health_port is not None:
            require_grpc()
        self.health = _build_health(name, self.version, checks or {})
        self._measuring = Measuring(capacity)
        self.metrics = self._measuring.metrics
        self._exchanges = Exchanges()
        self._bus: EventBus | None = None
        self._presence: Presence | None = None
        self._state: Any = None
        if logs:
            _configure_logs(self._settings, name, self.locate())
        self._tracer = telemetry.instrument(app, name, self.version)
        policy, calls = breaker or BreakerPolicy(), CallMetrics(self.metrics.registry)
        self._outbound = Outbound(name, self.locate, policy, calls, self._tracer, self._settings.zone or "")
        fitting.when_built(app, self._fit)

    def client(self, service: str, *, attempts: int = 3, **options: Any) -> "MeshClient":
        """A client of another service, for one call or for ever: connections belong to the process.

        Args:
            service: Its name; the client's paths are relative to it.
            attempts: Upper bound of tries for a call that may be repeated.
            options: Whatever `httpx.AsyncClient` takes, such as `timeout` or `headers`.
        """
        from toska_common.mesh.client import MeshClient
        from toska_common.mesh.transport import CallPolicy

        check_name(service)
        return MeshClient(service, self._outbound, CallPolicy(attempts=attempts), **options)

    def events(
        self,
        *,
        publishes: "Iterable[type[EventPayload]]" = (),
        codec: "Codec | None" = None,
        check_schemas: bool = True,
    ) -> "EventBus":
        """The app's event bus (extra `events`), open while the app runs; for `@bus.subscribe(...)` before that.

        Args:
            publishes: Payload types of the app's own events.
            codec: What is done to payloads on the wire: compression, encryption.
            check_schemas: Whether the mesh's schema registry is asked before the first event is published.

        Raises:
            ConfigurationError: The app has a bus already.
        """
        from toska_common.events.bus import EventBus
        from toska_common.events.proposing import Proposing
        from toska_common.mesh.eventing import Eventing

        if self._bus is not None:
            raise ConfigurationError(
                f"Mesh(name={self.name!r}): events() makes the app's one bus, and was called before"
            )
        eventing = Eventing(self.name, self._settings.events_url.get_secret_value(), self.locate)
        self._bus = EventBus(
            self.name,
            eventing.connect,
            publishes=publishes,
            codec=codec,
            registry=self.metrics.registry,
            before_publishing=Proposing(self.name, eventing.post) if check_schemas else None,
        )
        return self._bus

    def locate(self) -> Location:
        """The registry that this app belongs to at the moment."""
        return locate(self._settings)

    async def aclose(self) -> None:
        """Close the connections of calls that were made without the app running, as in a script."""
        await self._outbound.aclose()

    # The life of the app, as the middleware tells it.

    @asynccontextmanager
    async def running(self, scope: Scope) -> AsyncGenerator[None]:
        """From before the app's own start to after its end."""
        self._state = scope.get("state")
        async with anyio.create_task_group() as group, self._outbound.opened(group) as link:
            self._presence = Presence(
                settings=self._settings,
                health=self.health,
                exchanges=self._exchanges,
                link=link,
                build=self._registration,
                collect=self._measuring.collect,
                report=self._measuring.report,
                group=group,
            )
            async with self._presence.lasting(), nullcontext() if self._bus is None else self._bus.open():
                yield
            self._presence = None
            group.cancel_scope.cancel()
        if self._tracer is not None:
            with anyio.move_on_after(2, shield=True):
                await anyio.to_thread.run_sync(self._tracer.shutdown, abandon_on_cancel=True)

    def start(self) -> None:
        """The app has started."""
        presence = self._presence
        if presence is None:
            return
        self.health.draining = False
        presence.start(self._state)
        if self._grpc_health_port is not None and presence.bound_host is not None:
            presence.start_soon(serve_grpc_health, self.health, presence.bound_host, self._grpc_health_port)

    async def leave(self) -> None:
        """The app is about to stop."""
        if self._presence is not None:
            await self._presence.leave()

    # What is put on the app.

    def _fit(self) -> None:
        fitting.add_routes(self._app, [*self.health.routes(), Route("/metrics", self._serve_metrics, name="metrics")])
        if self._bus is not None:
            from toska_common.mesh.eventing import ASYNCAPI_PATH, serve_asyncapi

            fitting.add_routes(self._app, [Route(ASYNCAPI_PATH, serve_asyncapi(self._bus, self.version))])
        if self._problems:
            problem.install_beside(self._app)
        if self._tracer is not None:
            telemetry.make_global(self._tracer)
        middleware = Middleware(
            MeshMiddleware,
            lifecycle=self,
            metrics=self.metrics,
            exchanges=self._exchanges,
            prefix=ForwardedPrefix(self._settings.trusted_proxies),
            callers=self._measuring.callers,
        )
        self._app.user_middleware.insert(0, middleware)

    async def _serve_metrics(self, request: Request) -> Response:
        return await self._measuring.serve(request, None if self._presence is None else self._presence.workers)

    def _registration(self, address: str, port: int) -> ServiceRegistration:
        exposed = self._settings.expose
        return self._introduction.registration(
            address,
            port,
            lease_ttl=self._settings.lease_ttl,
            exposed=self.locate().expose_by_default if exposed is None else exposed,
            paths={META_OPENAPI: self._app.openapi_url, META_SAGAS: fitting.find_path(self._app, SAGAS_ROUTE)},
        )


def _build_health(name: str, version: str, checks: Mapping[str, CheckFunction]) -> HealthChecks:
    health = HealthChecks(name, version)
    for check, function in checks.items():
        health.add(check, function)
    return health


def _configure_logs(settings: MeshSettings, service: str, location: Location) -> None:
    # Who has set up logging knows what they want; that includes pytest and whoever started this process.
    if logging.getLogger().handlers or structlog.is_configured():
        return
    configure_logging(level=settings.log_level, format=settings.log_format, service=service, home=location.home)

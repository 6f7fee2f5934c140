"""Builds the events service: the log if it has one, the way to whatever carries events, and its place in the mesh."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import structlog
from toska_common import __version__
from toska_common.apps import create_management_app
from toska_common.clients.consul import ConsulClient
from toska_common.clients.presence import Presence, own_registration, withdrawing
from toska_common.clock import Clock, SystemClock
from toska_common.events.errors import EventsUnavailable
from toska_common.events.opening import open_transport
from toska_common.health import HealthChecks
from toska_common.metrics import ServiceMetrics
from toska_common.rpc.server import RpcServer
from toska_common.security import ManagementGuard, ManagementPolicy, host_names
from toska_common.server import Listener, Service
from toska_common.tasks import supervised_tasks

from toska_events.access import join_suffices
from toska_events.handlers import add_handlers
from toska_events.hosting import host_log
from toska_events.metrics import EventsCollector
from toska_events.parts import Parts, Webhooks
from toska_events.rpc.adding import SERVICE, add_to
from toska_events.schemas.book import SchemaBook
from toska_events.settings import Settings
from toska_events.webhooks.book import WebhookBook
from toska_events.webhooks.delivering import Deliverer, WebhookMetrics
from toska_events.webhooks.signing import Safe

DESCRIPTION = """What happened in the mesh, kept until everybody who wants it has it.

Changes need the admin token; reads are open on loopback. Every answer that is not 2xx is a problem document."""

log = structlog.get_logger(__name__)

_REOPEN_S = (0.2, 5.0)


def create_service(settings: Settings, *, clock: Clock | None = None) -> Service:
    """Build the events service. Whether the log can be opened shows when the service is started."""
    clock = clock or SystemClock()
    health = HealthChecks("toska-events", __version__)
    metrics = ServiceMetrics()
    parts = Parts(settings, clock)
    webhook_metrics = WebhookMetrics(metrics.registry)
    EventsCollector(metrics.registry, lambda: parts.log)
    app = create_management_app("Toska Mesh: events", description=DESCRIPTION, health=health, metrics=metrics)
    policy = ManagementPolicy(
        credentials=settings.credentials(),
        host=settings.host,
        allowed_hosts=host_names(settings.allowed_hosts),
        join_access=join_suffices,
    )
    add_handlers(app, parts)
    rpc: RpcServer | None = None
    if settings.grpc_port >= 0:
        rpc = RpcServer(
            settings.host,
            settings.grpc_port,
            add=partial(add_to, parts, policy, metrics.registry),
            service=SERVICE,
            loaded=("toska_events.rpc.service",),
            setting="TOSKA_EVENTS_GRPC_PORT",
            health=health,
            ready=lambda: service.ready,
        )
    listener = Listener("events", settings.host, settings.port, ManagementGuard(app, policy))

    def crash(error: Exception) -> None:
        service.on_crash(error)  # looked up now: `serve` sets it once the lifespan is open

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            if settings.is_embedded:
                parts.log = await stack.enter_async_context(host_log(settings, clock, crash))
            consul = await stack.enter_async_context(
                ConsulClient.open(
                    settings.registry_api_url, token=settings.registry_access(), tls=settings.registry_tls
                )
            )
            parts.schemas = SchemaBook(consul)
            parts.stopping = anyio.Event()
            parts.webhooks = Webhooks(WebhookBook(consul, Safe(settings.credentials().admin)), consul)
            tasks = await stack.enter_async_context(supervised_tasks(on_crash=crash))
            registration = own_registration(
                "toska-events", settings.host, settings.port, advertised=settings.advertise_address
            )
            presence = Presence(consul, registration)
            service.announce = presence.announce
            service.withdraw = withdrawing(health, presence, first=parts.stopping.set)
            tasks.start_soon(presence.keep)
            tasks.start_soon(_stay_connected, parts)
            if rpc is not None:
                tasks.start_soon(rpc.run)
            tasks.start_soon(Deliverer(parts, consul, parts.webhooks.book, webhook_metrics).run)
            if parts.log is not None:
                tasks.start_soon(parts.log.retention.run, settings.retention_interval)
            yield
        parts.log = parts.schemas = parts.webhooks = None

    service = Service("events", [listener], lifespan)
    if rpc is not None:
        health.add("grpc", lambda: rpc.started)
    health.add("listening", lambda: service.ready)
    health.add("transport", lambda: _require_transport(parts))
    return service


async def _stay_connected(parts: Parts) -> None:
    settings, wait_s = parts.settings, _REOPEN_S[0]
    while True:
        try:
            async with open_transport(
                settings.events_url.get_secret_value(),
                home=settings.home,
                token=settings.credentials().admin,
                service="toska-events",
            ) as transport:
                parts.transport, wait_s = transport, _REOPEN_S[0]
                await anyio.sleep_forever()
        except EventsUnavailable as error:
            log.warning("events_unavailable", reason=error.detail, retry_in_s=wait_s)
        finally:
            parts.transport = None
        await anyio.sleep(wait_s)
        wait_s = min(_REOPEN_S[1], wait_s * 2)


def _require_transport(parts: Parts) -> None:
    if not parts.get_transport().connected:
        raise LookupError("what carries events is away")

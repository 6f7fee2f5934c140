"""Builds the router: its parts, its API and its place in the mesh."""

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
from toska_common import __version__
from toska_common.apps import create_management_app
from toska_common.clients.consul import ConsulClient
from toska_common.clients.presence import Presence, own_registration, withdrawing
from toska_common.clock import Clock, SystemClock
from toska_common.contracts.events import INSTANCE_TOPICS, ROUTING_EVENTS
from toska_common.database import Database, DatabaseUnavailable
from toska_common.events.announcing import mesh_bus
from toska_common.events.asyncapi import ASYNCAPI_PATH, serve_asyncapi
from toska_common.events.nudges import Nudges
from toska_common.health import HealthChecks, Kind
from toska_common.metrics import ServiceMetrics
from toska_common.security import ManagementGuard, ManagementPolicy, host_names
from toska_common.server import Listener, Service
from toska_common.tasks import SupervisedTasks, supervised_tasks

from toska_router.announcing import announce
from toska_router.assembly import build_parts
from toska_router.book import RoutesBook
from toska_router.handlers import add_handlers
from toska_router.handlers.xds import xds_routes
from toska_router.metrics import RouterCollector
from toska_router.parts import Parts
from toska_router.rollouts.adoption import adopt
from toska_router.runs.book import RunsBook
from toska_router.runs.leading import Leader
from toska_router.settings import Settings
from toska_router.store import MIGRATIONS

if TYPE_CHECKING:
    from toska_router.programming.programmer import Programmer

DESCRIPTION = """Where requests go: routes and clusters, joined with the registry's instances into snapshots that
gateways follow.

Changes need the admin token, selecting an endpoint the join token; reads are open on loopback. Every answer that is not
2xx is a problem document."""

log = structlog.get_logger(__name__)

READS_BY_POST = frozenset({"/api/v1/snapshot"})
BY_JOIN = frozenset({"/api/v1/select", "/api/v1/select/report"})
"""Changes that apps may make: to be sent somewhere is to be counted there."""


def create_service(settings: Settings, *, clock: Clock | None = None) -> Service:
    """Build the router's service.

    Raises:
        ConfigurationError: The routing file or the stored routes cannot be used; every problem is named.
    """
    clock = clock or SystemClock()
    database = Database(settings.database_location, migrations=MIGRATIONS)
    parts = build_parts(settings, database, clock)
    health = HealthChecks("toska-router", __version__)
    metrics = ServiceMetrics()
    bus = mesh_bus("toska-router", settings, clock=clock, registry=metrics.registry)
    announce(parts, bus)
    # While the registry is away it is asked ever more seldom; who joins it says that it is back.
    parts.follower.sleep = Nudges(bus, *INSTANCE_TOPICS, name="registry").sleep
    RouterCollector(metrics.registry, parts)
    app = create_management_app("Toska Mesh: router", description=DESCRIPTION, health=health, metrics=metrics)
    app.add_route(ASYNCAPI_PATH, serve_asyncapi(lambda: bus, ROUTING_EVENTS), include_in_schema=False)
    add_handlers(app, parts)
    policy = ManagementPolicy(
        credentials=settings.credentials(),
        host=settings.host,
        allowed_hosts=host_names(settings.allowed_hosts),
        join_access=lambda method, path: method == "POST" and path in BY_JOIN,
        read_paths=READS_BY_POST,
    )
    programmer = _build_programmer(settings, parts, policy, clock, metrics)
    app.include_router(xds_routes(programmer))
    listener = Listener("router", settings.host, settings.port, ManagementGuard(app, policy))

    def crash(error: Exception) -> None:
        service.on_crash(error)  # looked up now: `serve` sets it once the lifespan is open

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        await _open(parts.book)
        await _open(parts.runs)
        async with (
            aclosing(database),
            bus.open(),
            ConsulClient.open(
                settings.registry_api_url, token=settings.registry_access(), tls=settings.registry_tls
            ) as consul,
            supervised_tasks(on_crash=crash) as tasks,
        ):
            registration = own_registration(
                "toska-router", settings.host, settings.port, advertised=settings.advertise_address
            )
            presence = Presence(consul, registration)
            service.announce = presence.announce
            service.withdraw = withdrawing(health, presence, first=parts.publisher.close)
            _start(parts, tasks, settings, consul)
            tasks.start_soon(presence.keep)
            if programmer is not None:
                tasks.start_soon(programmer.run)
            yield

    service = Service("router", [listener], lifespan)
    health.add("listening", lambda: service.ready)
    if programmer is not None:
        health.add("xds", lambda: programmer.port is not None)
    health.add("snapshot", lambda: _require_snapshot(parts), kind=Kind.STARTUP)
    return service


def _start(parts: Parts, tasks: SupervisedTasks, settings: Settings, consul: ConsulClient) -> None:
    leader = Leader(parts.runs, consul, _name(settings), settings.rollout_interval, partial(adopt, parts.book))
    for run in (parts.book.follow, parts.runs.follow, parts.tallies.run, leader.run, parts.composer.follow):
        tasks.start_soon(run)
    tasks.start_soon(parts.follower.run, consul)
    if parts.file is not None:
        tasks.start_soon(parts.file.watch, settings.routes_interval, parts.book.reload_file)


async def _open(book: RoutesBook | RunsBook) -> None:
    # What is wrong ends the router; what is away is waited for, while gateways go on with what they have.
    with suppress(DatabaseUnavailable):
        await book.open()


def _name(settings: Settings) -> str:
    return f"{settings.advertise_address or socket.gethostname()}:{settings.port}"


def _build_programmer(
    settings: Settings, parts: Parts, policy: ManagementPolicy, clock: Clock, metrics: ServiceMetrics
) -> "Programmer | None":
    if not settings.xds:
        return None
    from toska_router.programming.programmer import Programmer  # only where it is needed: it takes memory

    return Programmer(settings, parts.publisher, policy, clock, metrics.registry, parts.selector)


def _require_snapshot(parts: Parts) -> None:
    if not (parts.book.is_open and parts.runs.is_open):
        raise LookupError(f"waiting for the database: {parts.book.outage}")
    if parts.publisher.snapshot is None:
        raise LookupError(f"waiting for the registry: {', '.join(parts.follower.unseen)}")

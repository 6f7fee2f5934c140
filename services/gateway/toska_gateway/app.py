"""Builds the gateway: its data plane, its admin API and its place in the mesh."""

import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from toska_common.clients.consul import ConsulClient
from toska_common.clients.presence import Presence, own_registration, withdrawing
from toska_common.clock import SystemClock
from toska_common.contracts.events import BREAKER_EVENTS, INSTANCE_TOPICS, RouteChanged
from toska_common.credentials import ensure_secret
from toska_common.errors import ConfigurationError
from toska_common.events.announcing import mesh_bus
from toska_common.events.asyncapi import ASYNCAPI_PATH, serve_asyncapi
from toska_common.events.bus import EventBus
from toska_common.events.nudges import Nudges
from toska_common.health import HealthChecks
from toska_common.server import Service
from toska_common.targets import TargetRules
from toska_common.tasks import supervised_tasks

from toska_gateway.addresses import management_addresses
from toska_gateway.admin import Admin
from toska_gateway.announcing import Tell, announcer
from toska_gateway.data_plane import DataPlane
from toska_gateway.endpoint_reports import EndpointReporter
from toska_gateway.errors import RenewalFailed, SnapshotRejected
from toska_gateway.follower import SnapshotFollower
from toska_gateway.handlers import add_file_handlers, add_mesh_handlers
from toska_gateway.instance_calls import InstanceCaller
from toska_gateway.openapi.catalog import ApiCatalog
from toska_gateway.openapi.fetch import DocumentFetcher
from toska_gateway.openapi.sources import MeshSource, RegistrySource
from toska_gateway.outdated import OutdatedResponses
from toska_gateway.parts import FileParts, MeshParts, Parts
from toska_gateway.routes_file import RoutesFile
from toska_gateway.routing import Routing
from toska_gateway.sagas import TIMEOUT as SAGAS_TIMEOUT
from toska_gateway.sagas import ServiceSagas
from toska_gateway.settings import Settings
from toska_gateway.store import SnapshotStore
from toska_gateway.supervisor import Supervisor
from toska_gateway.system_routes import DISCOVERY, EVENTS, GATEWAY, ROUTER, build_system_routes

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)

AFFINITY_KEY = "affinity.key"
"""File of the key that affinity cookies are made with; gateways behind one name have the same."""


def create_service(settings: Settings) -> Service:
    """Build the gateway's service: one of a mesh, or, with `settings.routes`, one that serves a routing file alone.

    Raises:
        ConfigurationError: The routing file is wrong; every problem is named with its line.
    """
    return create_standalone_service(settings) if settings.routes is not None else create_mesh_service(settings)


def create_mesh_service(settings: Settings) -> Service:
    """Build a gateway that follows the mesh's router."""
    admin = Admin(settings)
    add_mesh_handlers(admin.app, admin.slot)
    buses: list[EventBus] = []
    admin.app.add_route(ASYNCAPI_PATH, serve_asyncapi(lambda: buses[-1], BREAKER_EVENTS), include_in_schema=False)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            management = await management_addresses(settings)
            session = await stack.enter_async_context(_open_session())
            consul = await stack.enter_async_context(
                ConsulClient.open(
                    settings.registry_api_url, token=settings.registry_access(), tls=settings.registry_tls
                )
            )
            bus = mesh_bus("toska-gateway", settings, clock=SystemClock(), registry=admin.metrics.registry)
            buses[:] = [bus]
            # A router that comes back joins the registry; of several, one may be away while another tells of a change.
            nudges = Nudges(bus, *INSTANCE_TOPICS, RouteChanged, name="mesh")
            outdated = OutdatedResponses(bus)
            await stack.enter_async_context(bus.open())
            data_plane = _build_data_plane(
                settings, management, announcer(bus, f"{socket.gethostname()}:{settings.port}")
            )
            await stack.enter_async_context(data_plane.run())
            tasks = await stack.enter_async_context(supervised_tasks(on_crash=admin.crash))

            routing = Routing(data_plane, build_system_routes(settings))
            store = SnapshotStore(settings.home)
            await _serve_stored(routing, store)
            follower = SnapshotFollower(
                session,
                settings.router_url,
                admin.credentials.admin,
                _name(data_plane.address),
                routing,
                sleep=nudges.sleep,
            )
            reporter = EndpointReporter(
                session,
                settings.router_url,
                admin.credentials.join,
                _name(data_plane.address),
                data_plane,
                settings.report_interval,
            )
            fetcher = DocumentFetcher(session)
            refusal = TargetRules(management).refusal
            users = RegistrySource(consul, fetcher, refusal)
            catalog = ApiCatalog(
                routing, users, _mesh_source(settings, admin, fetcher), open_reads=settings.data_is_local
            )
            caller = InstanceCaller(session, timeout=SAGAS_TIMEOUT)
            sagas = ServiceSagas(consul, caller, refusal, admin.credentials.admin)
            routing.on_change += [store.keep, catalog.refresh_soon]
            nudges.note = lambda event: catalog.hear_of(event.subject or "")
            host, port = data_plane.address
            registration = own_registration("toska-gateway", host, port, advertised=settings.advertise_address or "")
            presence = Presence(consul, registration)
            admin.service.announce = presence.announce
            admin.service.withdraw = withdrawing(admin.health, presence)
            tasks.start_soon(store.run)
            tasks.start_soon(follower.run)
            tasks.start_soon(reporter.run)
            tasks.start_soon(catalog.run)
            tasks.start_soon(nudges.run, catalog.look_at_heard)
            tasks.start_soon(outdated.run, data_plane.end_responses)
            tasks.start_soon(presence.keep)
            admin.service.on_hangup = partial(_renew_workers, data_plane)
            admin.slot.fill(Parts(settings, data_plane, routing, mesh=MeshParts(follower, catalog, sagas)))
            yield

    admin.service.lifespan = lifespan
    return admin.service


def create_standalone_service(settings: Settings) -> Service:
    """Build a gateway that serves the routing file of `settings.routes`, with no other process.

    Raises:
        ConfigurationError: The file is wrong; every problem is named with its line.
    """
    if settings.routes is None:
        raise ConfigurationError("TOSKA_GATEWAY_ROUTES: name the routing file to serve")
    file = _open_routes(settings, settings.routes)
    if file.first.table.server.tls is None and any(listener.tls for listener in settings.listeners):
        raise ConfigurationError(f"a listener on https:// needs server.tls, which {settings.routes} does not have")
    admin = Admin(settings)
    add_file_handlers(admin.app, admin.slot)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            data_plane = _build_data_plane(settings, await management_addresses(settings))
            await stack.enter_async_context(data_plane.run())
            tasks = await stack.enter_async_context(supervised_tasks(on_crash=admin.crash))
            routing = Routing(data_plane, build_system_routes(settings))
            try:
                await routing.apply(file.first, "file")
            except SnapshotRejected as error:
                raise ConfigurationError(
                    f"the routing file {settings.routes} cannot be served: {error.detail}"
                ) from error
            admin.service.withdraw = partial(_drain, admin.health)
            tasks.start_soon(file.watch, routing)
            admin.service.on_hangup = partial(_reload_all, file, routing, data_plane)
            reload = partial(file.reload, routing)
            admin.slot.fill(Parts(settings, data_plane, routing, file=FileParts(file.status, reload)))
            yield

    admin.service.lifespan = lifespan
    return admin.service


def _open_routes(settings: Settings, path: Path) -> RoutesFile:
    if settings.engine == "envoy":
        from toska_common.envoy import find_refusals  # here: our own workers need none of it
    else:
        from toska_gateway.refusals import find_refusals
    return RoutesFile(path, settings.certificates_folder, find_refusals)


def _build_data_plane(
    settings: Settings, management: frozenset[tuple[str, int]], tell: Tell = lambda _event, _fields: None
) -> DataPlane:
    if settings.engine == "envoy":
        from toska_gateway.envoy.plane import EnvoyDataPlane  # here: nobody else needs any of it

        return EnvoyDataPlane(
            settings.listeners,
            settings.workers,
            management,
            tls_folder=settings.certificates_folder,
            drain_s=settings.drain_timeout.total_seconds(),
        )
    if any(listener.http3 for listener in settings.listeners):
        raise ConfigurationError("http3=on: our own workers speak HTTP/1.1; run the gateway with --engine envoy")
    cache_url = settings.cache_url.get_secret_value()
    if cache_url.startswith("redis") and find_spec("redis") is None:
        raise ConfigurationError("TOSKA_CACHE_URL: Redis needs the package redis; install toska-gateway[redis]")
    return Supervisor(
        settings.host,
        settings.port,
        settings.workers,
        management,
        listeners=settings.listeners,
        tls_folder=settings.certificates_folder,
        drain_s=settings.drain_timeout.total_seconds(),
        secret=ensure_secret(settings.home / AFFINITY_KEY).encode("ascii"),
        home=settings.home,
        cache_url=cache_url,
        filters_folder=settings.filters_folder,
        zone=settings.zone,
        tell=tell,
    )


async def _reload_all(file: RoutesFile, routing: Routing, data_plane: DataPlane) -> None:
    await file.reload_quietly(routing)
    await _renew_workers(data_plane)


async def _renew_workers(data_plane: DataPlane) -> None:
    try:
        await data_plane.renew()
    except RenewalFailed as error:
        log.error("gateway_workers_not_renewed", reason=error.detail)


@asynccontextmanager
async def _open_session() -> "AsyncGenerator[aiohttp.ClientSession]":
    import aiohttp  # here: 0.1 s to import, and a gateway with a routing file needs none of it

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def _mesh_source(settings: Settings, admin: Admin, fetcher: DocumentFetcher) -> MeshSource:
    urls = {DISCOVERY: settings.discovery_url, ROUTER: settings.router_url, EVENTS: settings.events_api_url}
    return MeshSource(fetcher, urls, admin.credentials.admin, {GATEWAY: admin.app.openapi})


async def _serve_stored(routing: Routing, store: SnapshotStore) -> None:
    """Serve what was served last, so that nothing waits for the router."""
    stored = await store.load()
    if stored is not None:
        try:
            await routing.apply(stored, "store")
        except SnapshotRejected as error:
            log.error("stored_snapshot_rejected", problems=error.problems)
        else:
            return
    await routing.open()


def _name(address: tuple[str, int]) -> str:
    return f"{socket.gethostname()}:{address[1]}"


async def _drain(health: HealthChecks) -> None:
    health.draining = True

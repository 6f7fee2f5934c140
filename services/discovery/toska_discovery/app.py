"""Builds discovery: its listeners, its registry or its view of a real Consul, and its own place in the mesh."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from toska_common import __version__
from toska_common.apps import create_management_app
from toska_common.clients.consul import ConsulClient
from toska_common.clients.presence import Presence, own_registration, withdrawing
from toska_common.clock import Clock, SystemClock
from toska_common.contracts.events import INSTANCE_EVENTS
from toska_common.events.announcing import mesh_bus
from toska_common.events.asyncapi import ASYNCAPI_PATH, serve_asyncapi
from toska_common.health import HealthChecks
from toska_common.metrics import ServiceMetrics
from toska_common.rpc.server import RpcServer
from toska_common.security import ManagementGuard, ManagementPolicy, host_names
from toska_common.server import Listener, Service
from toska_common.targets import TargetRules
from toska_common.tasks import SupervisedTasks, supervised_tasks

from toska_discovery.announcing import announce_by_lock, announce_feed
from toska_discovery.backend import Backend
from toska_discovery.catalog_events import CatalogEvents
from toska_discovery.consul.access import ConsulPolicy
from toska_discovery.consul.answers import Answers
from toska_discovery.consul.app import ConsulApi
from toska_discovery.consul.durations import parse_duration
from toska_discovery.consul.endpoints import Endpoints
from toska_discovery.consul.protocol import ConsulProtocol
from toska_discovery.consul.rules import RegistrationRules
from toska_discovery.consul.views import Node
from toska_discovery.consul_backend import ConsulBackend, in_order
from toska_discovery.directory import Directory
from toska_discovery.dns.building import build_dns, open_dns
from toska_discovery.dns.queries import QueryFinder
from toska_discovery.dns.server import DnsCounts
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.embedded_backend import EmbeddedBackend
from toska_discovery.feed import Feed
from toska_discovery.handlers import join_suffices, router
from toska_discovery.instance import canonical_address
from toska_discovery.metrics import DiscoveryCollector, DnsCollector, VacancyCollector
from toska_discovery.probing.opening import ProbingRules, open_probing
from toska_discovery.registry import Registry
from toska_discovery.rpc.adding import SERVICE, add_to
from toska_discovery.settings import Settings
from toska_discovery.store import SqliteStore
from toska_discovery.vacancies.listeners import find_listing
from toska_discovery.vacancies.watcher import VacancyCounts, VacancyWatcher
from toska_discovery.watch import Watchers

DESCRIPTION = """Who is there: the instances of every service, for as long as they renew their leases.

Registering, renewing and deregistering need the join token, services named `toska-…` the admin token; reads are open on
loopback. Every answer that is not 2xx is a problem document. The same registry answers in Consul's HTTP API."""

REST, CONSUL = "discovery", "consul"
"""Names of the listeners."""


def create_service(settings: Settings, *, clock: Clock | None = None, targets: TargetRules | None = None) -> Service:
    """Build the discovery service.

    Args:
        settings: With a home that exists.
        clock: The machine's own if left out.
        targets: Addresses that must not be registered; discovery's own listeners if left out.
    """
    return _Discovery(settings, clock or SystemClock(), targets or _own_targets(settings)).service


class _Discovery:
    """The parts of one discovery; `service` runs them."""

    def __init__(self, settings: Settings, clock: Clock, targets: TargetRules) -> None:
        self._settings = settings
        self._clock = clock
        self._targets = targets
        policy = ManagementPolicy(
            credentials=settings.credentials(),
            host=settings.host,
            allowed_hosts=host_names(settings.allowed_hosts, [settings.advertise_address]),
            join_access=join_suffices,
        )
        self._policy = policy
        self._health = HealthChecks("toska-discovery", __version__)
        metrics = self._metrics = ServiceMetrics()
        self._directory: Directory | None = None
        self._rest = _build_rest(self._health, metrics)
        self._api = ConsulApi(ConsulPolicy(policy, acl=settings.registry_acl))
        self._bus = mesh_bus("toska-discovery", settings, clock=clock, registry=metrics.registry)
        described = serve_asyncapi(lambda: self._bus, INSTANCE_EVENTS)
        self._rest.add_route(ASYNCAPI_PATH, described, include_in_schema=False)
        self._dns_counts = DnsCounts()
        self._vacancies = VacancyCounts()
        listeners = [Listener(REST, settings.host, settings.port, ManagementGuard(self._rest, policy))]
        if settings.is_embedded:
            DiscoveryCollector(self._api, metrics.registry)
            DnsCollector(self._dns_counts, metrics.registry)
            VacancyCollector(self._vacancies, metrics.registry)
            listeners.append(Listener(CONSUL, settings.host, settings.consul_port, self._api, ConsulProtocol))
        self.service = Service("discovery", listeners, self._lifespan)
        self._health.add("listening", lambda: self.service.ready)

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        settings = self._settings
        open_registry = self._open_embedded if settings.is_embedded else self._open_consul
        async with (
            ConsulClient.open(
                settings.registry_api_url, token=settings.registry_access(), tls=settings.registry_tls
            ) as consul,
            self._bus.open(),
            supervised_tasks(on_crash=self._crash) as tasks,
            open_registry(consul, tasks),
        ):
            registration = own_registration("toska-discovery", settings.own_address, settings.port)
            presence = Presence(consul, registration, ttl=settings.lease_ttl)
            self._health.draining = False
            self.service.announce = presence.announce
            self.service.withdraw = withdrawing(self._health, presence, first=self._release_watchers)
            tasks.start_soon(presence.keep)
            yield

    @asynccontextmanager
    async def _open_embedded(self, _: ConsulClient, tasks: SupervisedTasks) -> AsyncGenerator[None]:
        settings = self._settings
        async with SqliteStore.open(settings.home) as store:
            now, stored = self._clock.monotonic(), store.stored
            node = Node(
                id=stored.node_id,
                name=settings.node_name,
                address=settings.own_address,
                datacenter=settings.datacenter,
                port=settings.consul_port,
                index=stored.index,
            )
            state = Registry(sweep_interval_s=settings.sweep_interval.total_seconds(), now=now, node=node.definition)
            state.load(
                stored.instances,
                stored.keys,
                stored.index,
                now,
                nodes=stored.nodes,
                sessions=stored.sessions,
                delays=stored.delays,
                queries=stored.queries,
            )
            watchers = Watchers(settings.max_watchers)
            registry = EmbeddedRegistry(state, store, watchers, self._clock, max_instances=settings.max_instances)
            rules = RegistrationRules(settings.removal_after.total_seconds(), self._targets, settings.check_kinds)
            self._api.endpoints = Endpoints(
                registry, node, Answers(state, node), rules, self._clock.now(), acl=settings.registry_acl
            )
            backend = EmbeddedBackend(registry, lease_ttl=settings.lease_ttl, removal_after=settings.removal_after)
            feed = self._open_directory(backend, tasks).feed
            registry.on_change(partial(backend.tell, feed))
            tasks.start_soon(announce_feed, feed, self._bus)
            self._health.add("store", lambda: _require_store(store))
            tasks.start_soon(registry.keep_sweeping, settings.sweep_interval)
            probing = ProbingRules(
                targets=self._targets,
                scripts=settings.enable_script_checks,
                at_a_time=settings.max_probes,
                node_name=settings.node_name,
            )
            if settings.watch_ports and (listing := find_listing()) is not None:
                tasks.start_soon(VacancyWatcher(registry, listing, self._clock, self._vacancies).run)
            finder = QueryFinder(state, parse_duration)
            dns = build_dns(settings, state.listing, self._clock, self._dns_counts, finder.find)
            async with (
                open_probing(registry, probing, self._clock, self._crash),
                open_dns(dns, settings, tasks),
            ):
                try:
                    yield
                finally:
                    registry.watchers.stop()

    @asynccontextmanager
    async def _open_consul(self, consul: ConsulClient, tasks: SupervisedTasks) -> AsyncGenerator[None]:
        settings = self._settings
        backend = ConsulBackend(
            consul, lease_ttl=settings.lease_ttl, removal_after=settings.removal_after, clock=self._clock
        )
        feed = self._open_directory(backend, tasks).feed
        tasks.start_soon(announce_by_lock, feed, self._bus, consul, settings.node_name)
        tasks.start_soon(CatalogEvents(consul, feed, lambda entries: in_order(entries, {})).follow)
        self._health.add("consul", lambda: _require_leader(consul))
        yield

    def _open_directory(self, backend: Backend, tasks: SupervisedTasks) -> Directory:
        directory = self._directory = Directory(backend, Feed(), self._targets, self._clock)
        self._rest.state.directory = directory
        if self._settings.grpc_port >= 0:
            rpc = RpcServer(
                self._settings.host,
                self._settings.grpc_port,
                add=partial(add_to, directory, self._policy, self._metrics.registry),
                service=SERVICE,
                loaded=("toska_discovery.rpc.service",),
                setting="TOSKA_DISCOVERY_GRPC_PORT",
                health=self._health,
                ready=lambda: self.service.ready,
            )
            self._health.add("grpc", lambda: rpc.started)
            tasks.start_soon(rpc.run)
        return directory

    def _release_watchers(self) -> None:
        if self._directory is not None:
            self._directory.feed.stop()
        if self._api.endpoints is not None:
            self._api.endpoints.registry.watchers.stop()

    def _crash(self, error: Exception) -> None:
        self.service.on_crash(error)  # looked up now: `serve` sets it once the lifespan is open


def _build_rest(health: HealthChecks, metrics: ServiceMetrics) -> FastAPI:
    app = create_management_app("Toska Mesh: discovery", description=DESCRIPTION, health=health, metrics=metrics)
    app.include_router(router)
    return app


def _own_targets(settings: Settings) -> TargetRules:
    hosts = {canonical_address(host) for host in (settings.host, settings.own_address)}
    ports = {settings.port, settings.grpc_port}
    if settings.is_embedded:
        ports |= {settings.consul_port, settings.dns_port}
    return TargetRules(frozenset((host, port) for host in hosts for port in ports))


def _require_store(store: SqliteStore) -> None:
    if store.failure is not None:
        raise OSError(f"the state file cannot be written: {store.failure}")


async def _require_leader(consul: ConsulClient) -> None:
    if not await consul.leader():
        raise LookupError("the Consul cluster has no leader")

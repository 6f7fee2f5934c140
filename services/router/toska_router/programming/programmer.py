"""Keeps the xDS server's resources in step with the publisher's snapshots, and tells of its clients."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import structlog
from prometheus_client import CollectorRegistry
from toska_common.clock import Clock, now_utc
from toska_common.contracts.router import DocumentProblem
from toska_common.contracts.xds import XdsClient, XdsLoad, XdsRefusal, XdsStatus, XdsType
from toska_common.envoy import ListenerOptions, Options
from toska_common.envoy.faults import ended, next_end
from toska_common.errors import ConfigurationError, NotFound
from toska_common.routing.picking import PickedRoutes
from toska_common.routing.problems import format_location
from toska_common.security import ManagementPolicy

from toska_router.programming.access import admit_by
from toska_router.programming.bootstrap import envoy_bootstrap, grpc_bootstrap
from toska_router.programming.loads import Counting, LoadBook, LoadSums
from toska_router.programming.metrics import XdsCollector
from toska_router.programming.tls_files import TlsFiles
from toska_router.programming.translation import Translation
from toska_router.publisher import Publisher
from toska_router.settings import Settings
from toska_router.xds import EVERYBODY, AddressTaken, ClientStatus, LoadReports, Refusal, TypeStatus, XdsServer

log = structlog.get_logger(__name__)


class Programmer:
    """The router's xDS side; `run` serves it.

    Args:
        settings: Where it listens, and where Envoys are to.
        publisher: Whose snapshots are served.
        policy: Who may have them.
        clock: Of timestamps.
        registry: Of metrics.
        counting: Who is told what clients report to have sent.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        policy: ManagementPolicy,
        clock: Clock,
        registry: CollectorRegistry,
        counting: Counting,
    ) -> None:
        interval_s = settings.xds_load_interval.total_seconds()
        self._loads = LoadBook(counting)
        loads = LoadReports(self._loads.take, interval_s) if interval_s else None
        self.server = XdsServer(admit=admit_by(policy), clock=clock, loads=loads)
        XdsCollector(registry, self.server, self._loads)
        self.port: int | None = None
        self._settings = settings
        self._tls = _tls_files(settings)
        self._publisher = publisher
        self._translation = Translation(_options(settings), report_loads=loads is not None)
        self._version = ""
        self._failure = ""
        self._faulty = PickedRoutes(lambda route: route.policies.fault is not None)

    async def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Listen, and follow the publisher, until cancelled.

        Raises:
            ConfigurationError: The port is taken, or the certificate cannot be used.
        """
        settings, tls = self._settings, self._tls
        shown = None if tls is None else await anyio.to_thread.run_sync(tls.open)
        try:
            async with (
                self.server.listening(settings.host, settings.xds_port, shown) as port,
                anyio.create_task_group() as group,
            ):
                self.port = port
                on_started()
                if tls is not None:
                    group.start_soon(tls.follow)
                await self._follow()
        except AddressTaken as error:
            raise ConfigurationError(f"{error} for xDS: stop what uses it, or set TOSKA_ROUTER_XDS_PORT") from error
        finally:
            self.port = None

    async def _follow(self) -> None:
        served, due = None, None
        while True:
            snapshot, now = self._publisher.snapshot, now_utc()
            if snapshot is None or (snapshot is served and (due is None or now < due)):
                with anyio.move_on_after(None if due is None else (due - now).total_seconds()):
                    await self._publisher.wait_for_change()
                continue
            # Envoy ends no fault by itself: it is told again when one is over.
            served, due = snapshot, None
            if self._faulty.of(snapshot.table):
                due = next_end(snapshot.table, now)
                snapshot = snapshot.model_copy(update={"table": ended(snapshot.table, now)})
            try:
                # In a thread: ten thousand routes take a second, and gateways wait for their answers meanwhile.
                resources = await anyio.to_thread.run_sync(self._translation.update, snapshot)
            except Exception as error:
                self._failure = f"the snapshot could not be translated: {error}"
                log.exception("xds_translation_failed", version=snapshot.version)
                continue
            self._failure = ""
            self._version = snapshot.version
            self._loads.follow(snapshot.table.clusters)
            self.server.set_resource_set(EVERYBODY, resources)

    @property
    def status(self) -> XdsStatus:
        """The server, its clients, and what they refused."""
        settings = self._settings
        problems = [
            DocumentProblem(field=format_location(one.location), reason=one.reason)
            for one in self._translation.problems
        ]
        if self._failure:
            problems.append(DocumentProblem(field="", reason=self._failure))
        return XdsStatus(
            listening=self.port is not None,
            port=self.port or settings.xds_port,
            version=self._version,
            envoys_listen_on=tuple(f"{host}:{port}" for host, port in settings.xds_listen),
            problems=tuple(problems),
            loads=tuple(_load(name, sums) for name, sums in sorted(self._loads.sums.items())),
            target_problems=tuple(
                DocumentProblem(field=format_location(one.location), reason=one.reason)
                for one in self._translation.routed.problems
            ),
            tls_problem="" if self._tls is None else self._tls.problem,
            clients=tuple(_client(each) for each in self.server.list_clients()),
            refusals=tuple(
                _refusal(each.refusal).model_copy(update={"node": each.node.id, "at": each.at})
                for each in self.server.tally.refusals
            ),
        )

    def envoy_bootstrap(self, node: str, admin_port: int) -> dict[str, Any]:
        """What an Envoy is started with that this router programs."""
        host, port = self._address
        loads = bool(self._settings.xds_load_interval)
        return envoy_bootstrap(host, port, node=node, admin_port=admin_port, report_loads=loads)

    def grpc_bootstrap(self, node: str) -> dict[str, Any]:
        """The same for gRPC's clients."""
        host, port = self._address
        return grpc_bootstrap(host, port, node=node)

    @property
    def _address(self) -> tuple[str, int]:
        settings = self._settings
        if settings.xds_certificate is not None:
            raise NotFound("xDS is served over TLS here: docs/xds.md shows what clients are started with then")
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
        return settings.advertise_address or reachable, self.port or settings.xds_port


def _options(settings: Settings) -> Options:
    listeners = tuple(ListenerOptions(f"toska-{port}", host, port) for host, port in settings.xds_listen)
    folder = settings.home if settings.routes is None else settings.routes.parent
    return Options(listeners=listeners, folder=folder.absolute())


def _tls_files(settings: Settings) -> TlsFiles | None:
    if settings.xds_certificate is None or settings.xds_key is None:
        return None
    return TlsFiles(settings.xds_certificate, settings.xds_key, settings.xds_client_ca)


def _load(name: str, sums: LoadSums) -> XdsLoad:
    return XdsLoad(cluster=name, requests=sums.requests, failures=sums.failures, dropped=sums.dropped)


def _client(status: ClientStatus) -> XdsClient:
    return XdsClient(
        node=status.node.id,
        cluster=status.node.cluster,
        zone=status.node.zone,
        user_agent=status.node.user_agent,
        peer=status.peer,
        group=status.group,
        incremental=status.incremental,
        aggregated=status.aggregated,
        connected_at=status.connected_at,
        up_to_date=all(each.up_to_date for each in status.types),
        types=tuple(_type(each) for each in status.types),
    )


def _type(status: TypeStatus) -> XdsType:
    return XdsType(
        type_url=status.type_url,
        wildcard=status.wildcard,
        names=status.names,
        accepted_version=status.accepted_version,
        up_to_date=status.up_to_date,
        refusals=tuple(_refusal(each) for each in status.refusals),
    )


def _refusal(refusal: Refusal) -> XdsRefusal:
    return XdsRefusal(type_url=refusal.type_url, version=refusal.version, names=refusal.names, reason=refusal.reason)

"""What `toska up` is going to run, worked out and checked before anything is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toska_discovery.settings
import toska_events.settings
import toska_gateway.settings
import toska_router.settings
from toska_common.errors import ConfigurationError
from toska_common.security import is_loopback
from toska_common.settings import prepare_home, registry_http_url

from toska_cli.ports import EXAMPLES_OFFSET, PortPlan


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line said; `None` leaves it to the environment and the defaults."""

    home: Path | None = None
    ports_from: int | None = None
    workers: int | None = None
    examples: bool = True
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """Settings of every service, made to fit each other."""

    home: Path
    host: str
    discovery: toska_discovery.settings.Settings
    events: toska_events.settings.Settings
    router: toska_router.settings.Settings
    gateway: toska_gateway.settings.Settings
    examples_from: int | None
    """First port of the examples; `None` runs none."""

    @property
    def urls(self) -> dict[str, str]:
        """Where each part answers, as `mesh.json` lists it."""
        found = {
            "gateway": base_url(*self.gateway.data_address),
            "gateway_admin": self._url(self.gateway.admin_port),
            "registry": registry_http_url(self.discovery.registry_url, self._url(self.discovery.consul_port)),
            "discovery": self._url(self.discovery.port),
            "router": self._url(self.router.port),
            "events": self._url(self.events.port),
            **({"discovery_grpc": self._url(self.discovery.grpc_port, "grpc")} if self.discovery.grpc_port > 0 else {}),
        }
        if self.events.grpc_port > 0:
            found["events_grpc"] = self._url(self.events.grpc_port, "grpc")
        if self.router.xds:
            found["xds"] = self._url(self.router.xds_port, "grpc")
        if self.dns is not None:
            found["dns"] = self._url(self.dns[1]).replace("http:", "dns:")
        return found

    @property
    def listeners(self) -> list[tuple[str, int]]:
        """Every address that the services of this process listen on."""
        found = [
            (self.discovery.host, self.discovery.port),
            (self.events.host, self.events.port),
            (self.router.host, self.router.port),
            (self.gateway.bound_admin_host, self.gateway.admin_port),
        ]
        if self.discovery.is_embedded:
            found.append((self.discovery.host, self.discovery.consul_port))
        return found

    @property
    def dns(self) -> tuple[str, int] | None:
        """Where discovery answers in DNS, if it does; it binds that itself."""
        discovery = self.discovery
        return (discovery.host, discovery.dns_port) if discovery.is_embedded and discovery.dns_port > 0 else None

    @property
    def bound_later(self) -> list[tuple[str, int]]:
        """Addresses that services bind themselves: neither DNS nor gRPC takes a socket of others."""
        discovery = self.discovery
        grpc = [(discovery.host, discovery.grpc_port)] if discovery.grpc_port > 0 else []
        if self.events.grpc_port > 0:
            grpc.append((self.events.host, self.events.grpc_port))
        if self.router.xds:
            grpc.append((self.router.host, self.router.xds_port))
        return grpc if self.dns is None else [*grpc, self.dns]

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the mesh."""
        return is_loopback(self.host)

    def _url(self, port: int, scheme: str = "http") -> str:
        return base_url(self.host, port, scheme)


def base_url(host: str, port: int, scheme: str = "http") -> str:
    """A URL under which this machine reaches a listener on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def plan_mesh(options: UpOptions) -> MeshPlan:
    """Read and check every setting, and make the state folder.

    Raises:
        ConfigurationError: A setting is wrong, or the home cannot be used.
    """
    shared: dict[str, Any] = {}
    ports = PortPlan() if options.ports_from is None else PortPlan.starting_at(options.ports_from)
    moved = options.ports_from is not None
    if options.home is not None:
        shared["home"] = options.home
    discovery = toska_discovery.settings.Settings.from_environment(**shared)
    if moved:
        discovery = discovery.model_copy(update=_discovery_ports(ports, discovery))
    shared["home"] = prepare_home(discovery.home)
    discovery = discovery.model_copy(update=shared)
    registry = registry_http_url(discovery.registry_url, base_url(discovery.host, discovery.consul_port))
    events = toska_events.settings.Settings.from_environment(**shared, registry_url=registry)
    if moved:
        events = events.model_copy(update=_events_ports(ports, events))
    router = toska_router.settings.Settings.from_environment(
        **shared, registry_url=registry, **(_router_ports(ports) if moved else {})
    )
    gateway_overrides: dict[str, Any] = {"port": ports.gateway, "admin_port": ports.gateway_admin} if moved else {}
    if options.workers is not None:
        gateway_overrides["workers"] = options.workers
    if options.engine is not None:
        gateway_overrides["engine"] = options.engine
    gateway = toska_gateway.settings.Settings.from_environment(
        **shared,
        **gateway_overrides,
        registry_url=registry,
        router_url=base_url(router.host, router.port),
        discovery_url=base_url(discovery.host, discovery.port),
        events_api_url=base_url(events.host, events.port),
    )
    if gateway.routes is not None:
        raise ConfigurationError(
            "TOSKA_GATEWAY_ROUTES: a gateway with a file of its own follows no router, so it is for `toska gateway`; "
            "give the file to the mesh's router as TOSKA_ROUTER_ROUTES"
        )
    examples_from = (options.ports_from + EXAMPLES_OFFSET) if options.ports_from is not None else ports.examples
    return MeshPlan(
        home=shared["home"],
        host=discovery.host,
        discovery=discovery,
        events=events,
        router=router,
        gateway=gateway,
        examples_from=examples_from if options.examples else None,
    )


def _events_ports(ports: PortPlan, settings: toska_events.settings.Settings) -> dict[str, int]:
    moved = {"port": ports.events}
    return moved if settings.grpc_port < 0 else {**moved, "grpc_port": ports.events_grpc}


def _router_ports(ports: PortPlan) -> dict[str, Any]:
    return {"port": ports.router, "xds_port": ports.xds, "xds_listen": (("127.0.0.1", ports.envoy),)}


def _discovery_ports(ports: PortPlan, settings: toska_discovery.settings.Settings) -> dict[str, int]:
    moved = {"port": ports.discovery, "consul_port": ports.registry}
    # What was turned off is not moved.
    if settings.dns_port >= 0:
        moved["dns_port"] = ports.dns
    if settings.grpc_port >= 0:
        moved["grpc_port"] = ports.discovery_grpc
    return moved

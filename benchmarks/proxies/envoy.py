"""Envoy, as an edge proxy: client address trusted from the socket, paths normalised."""

import json
from pathlib import Path

from benchmarks.parts import Program, get_script
from benchmarks.profiles import route_path
from benchmarks.proxies.certificate import Certificate
from benchmarks.proxies.setup import Proxy, Setup

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_QUIET = ("--disable-hot-restart", "--log-level", "error")
_ROOM = 16_384
_DOWNSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _tls(pair: Certificate) -> dict[str, object]:
    files = {"certificate_chain": {"filename": str(pair.certificate)}, "private_key": {"filename": str(pair.key)}}
    context = {"@type": _DOWNSTREAM_TLS, "common_tls_context": {"tls_certificates": [files]}}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _bootstrap(setup: Setup) -> dict[str, object]:
    routes = [
        {"match": {"path_separated_prefix": route_path(route)}, "route": {"cluster": "everybody"}}
        for route in range(setup.routes)
    ]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "edge",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    chain: dict[str, object] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if setup.certificate is not None:
        chain["transport_socket"] = _tls(setup.certificate)
    endpoints = [{"endpoint": {"address": _address(port)}} for port in setup.upstreams]
    cluster = {
        "name": "everybody",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {
            "thresholds": [{"max_connections": _ROOM, "max_requests": _ROOM, "max_pending_requests": _ROOM}]
        },
        "load_assignment": {"cluster_name": "everybody", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "edge", "address": _address(setup.port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _command(program: Program, setup: Setup) -> list[str | Path]:
    file = setup.folder / "envoy.json"
    file.write_text(json.dumps(_bootstrap(setup)))
    return [program.path, "-c", file, "--concurrency", str(setup.workers), *_QUIET]


def _version(program: Program) -> str:
    return program.version("--version").rpartition("version:")[2].split("/")[1]


ENVOY = Proxy("envoy", lambda: get_script("envoy"), _version, _command)

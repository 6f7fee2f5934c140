"""Envoy, as an edge proxy: client address trusted from the socket, paths normalised."""

import json
from pathlib import Path

from benchmarks.parts import Program, get_script
from benchmarks.profiles import route_path
from benchmarks.proxies.certificate import Certificate
from benchmarks.proxies.guard import Guard
from benchmarks.proxies.setup import Proxy, Setup

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_QUIET = ("--disable-hot-restart", "--log-level", "error")
_ROOM = 16_384
_DOWNSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


_JWT = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
# What our own lines say, as far as Envoy knows it.
_LINE = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def _guarding(guard: Guard) -> dict[str, object]:
    provider = {
        "issuer": guard.issuer,
        "audiences": [guard.audience],
        "local_jwks": {"filename": str(guard.keys)},
        "forward": True,
        "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}],
        "jwt_cache_config": {"jwt_cache_size": 8192},
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}]
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {"@type": _JWT, "providers": {"issuer": provider}, "rules": rules},
    }


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
    filters: list[dict[str, object]] = [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}]
    logs: list[dict[str, object]] = []
    if setup.guard is not None:
        filters.insert(0, _guarding(setup.guard))
        config = {"@type": _LOG, "path": str(setup.log), "log_format": {"json_format": _LINE}}
        logs.append({"name": "envoy.access_loggers.file", "typed_config": config})
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "edge",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
        "access_log": logs,
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

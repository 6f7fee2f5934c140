"""Listeners: addresses, TLS, and whose word about clients is believed.

Connections of trusted proxies and of strangers have filter chains of their own, told apart by the peer's address.
"""

from collections.abc import Iterator
from typing import Final

from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing import RouteTable
from toska_common.contracts.tls import ServerTls
from toska_common.envoy import clients
from toska_common.envoy.access import cidr
from toska_common.envoy.clusters import certificate
from toska_common.envoy.manager import connection_manager
from toska_common.envoy.options import ListenerOptions, Options
from toska_common.envoy.replies import local_reply_config
from toska_common.envoy.words import Json, extension, pipe, seconds, socket_address, typed

_BUFFER_BYTES: Final = 65536
_BACKLOG: Final = 4096
_MANAGER: Final = ".filters.network.http_connection_manager.v3.HttpConnectionManager"


def listener_resources(table: RouteTable, options: Options, routes: str, chain: list[Json]) -> Iterator[Json]:
    """Every listener that the routing can serve: one on https:// waits until there is a certificate.

    They take requests to the route configuration `routes`, through the HTTP filters of `chain`.
    """
    for one in options.listeners:
        if _speaks_tls(one, table) and table.server.tls is None:
            continue
        yield _listener(one, table, options, routes, chain)
        if one.http3 and table.server.tls is not None:
            yield _datagrams(one, table.server.tls, table, options, routes, chain)


def _speaks_tls(one: ListenerOptions, table: RouteTable) -> bool:
    if one.redirect or (one.path and one.tls is None):
        return False
    return table.server.tls is not None if one.tls is None else one.tls


def _listener(one: ListenerOptions, table: RouteTable, options: Options, routes: str, chain: list[Json]) -> Json:
    limits = table.server.limits
    made: Json = {
        "name": one.name,
        "address": pipe(one.path, one.mode) if one.path else socket_address(one.host, one.port),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "tcp_backlog_size": _BACKLOG,
        "listener_filters_timeout": seconds(limits.handshake_timeout),
        "filter_chains": [*_chains(one, table, options, routes, chain)],
        "stat_prefix": one.name,
    }
    filters: list[Json] = []
    if _is_proxied(one, table):
        filters.append(extension("toska.proxy_protocol", ".filters.listener.proxy_protocol.v3.ProxyProtocol"))
    if _speaks_tls(one, table):
        filters.append(extension("toska.tls_inspector", ".filters.listener.tls_inspector.v3.TlsInspector"))
    if filters:
        made["listener_filters"] = filters
    return made


def _datagrams(
    one: ListenerOptions, tls: ServerTls, table: RouteTable, options: Options, routes: str, chain: list[Json]
) -> Json:
    """HTTP/3 on the same port. Clients come to it by Alt-Svc, and whom they come from nobody vouches for."""
    context = _downstream_context(tls, options, "h3")
    return {
        "name": f"{one.name}-quic",
        "address": socket_address(one.host, one.port, protocol="UDP"),
        "udp_listener_config": {"quic_options": {}, "downstream_socket_config": {"prefer_gro": True}},
        "filter_chains": [
            {
                "name": "quic",
                "metadata": options.tls_metadata(),
                "filters": _doubting(table, options, routes, chain, http3=True),
                "transport_socket": extension(
                    "toska.quic",
                    ".transport_sockets.quic.v3.QuicDownstreamTransport",
                    downstream_tls_context=context,
                ),
            }
        ],
        "stat_prefix": f"{one.name}-quic",
    }


def _is_proxied(one: ListenerOptions, table: RouteTable) -> bool:
    if one.proxied is None:
        return not one.path and table.server.proxy_protocol is not None
    return one.proxied


def _chains(
    one: ListenerOptions, table: RouteTable, options: Options, routes: str, chain: list[Json]
) -> Iterator[Json]:
    """The chains of trusted proxies and of others; those that a PROXY header is not believed of get none."""
    if one.redirect:
        yield _chain("redirect", {}, [_redirecting(one)], one, table, options)
        return
    doubting = _doubting(table, options, routes, chain)
    believing = [connection_manager(table, options, routes, chain, trusted=True)]
    peers: Json = {}
    if _is_proxied(one, table) and table.server.proxy_protocol is not None:
        peers = {"direct_source_prefix_ranges": [cidr(net) for net in table.server.proxy_protocol.trusted_peers]}
    if one.path:
        trusted = UNIX_PREFIX in table.server.trusted_proxies
        yield _chain("socket", peers, believing if trusted else doubting, one, table, options)
        return
    networks = [cidr(network) for network in table.server.trusted_proxies if network != UNIX_PREFIX]
    if networks:
        yield _chain("trusted", {**peers, "source_prefix_ranges": networks}, believing, one, table, options)
    yield _chain("others", peers, doubting, one, table, options)


def _doubting(
    table: RouteTable, options: Options, routes: str, chain: list[Json], *, http3: bool = False
) -> list[Json]:
    manager = connection_manager(table, options, routes, chain, trusted=False, http3=http3)
    return [*([clients.of_connections()] if clients.matters(table) else ()), manager]


def _chain(
    name: str, match: Json, managers: list[Json], one: ListenerOptions, table: RouteTable, options: Options
) -> Json:
    limits = table.server.limits
    bound: Json = extension(
        "toska.connections",
        ".filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="edge",
        max_connections=str(limits.connections * options.workers),
    )
    chain: Json = {"name": name, "filters": [bound, *managers]}
    if match:
        chain["filter_chain_match"] = match
    if _speaks_tls(one, table) and table.server.tls is not None:
        chain["metadata"] = options.tls_metadata()
        chain["transport_socket"] = _downstream_tls(table.server.tls, options)
        chain["transport_socket_connect_timeout"] = seconds(limits.handshake_timeout)
    return chain


def _downstream_tls(tls: ServerTls, options: Options) -> Json:
    context = _downstream_context(tls, options, "h2", "http/1.1")
    return {"name": "toska.tls", "typed_config": typed(".transport_sockets.tls.v3.DownstreamTlsContext", **context)}


def _downstream_context(tls: ServerTls, options: Options, *protocols: str) -> Json:
    common: Json = {
        "alpn_protocols": list(protocols),
        "tls_params": {"tls_minimum_protocol_version": f"TLSv{tls.min_version.replace('.', '_')}"},
        "tls_certificates": [
            certificate(options.file(pair.certificate), options.file(pair.key)) for _, pair in tls.pairs
        ],
    }
    context: Json = {"common_tls_context": common}
    if tls.client is not None:
        common["validation_context"] = {"trusted_ca": {"filename": options.file(tls.client.ca)}}
        context["require_client_certificate"] = tls.client.mode == "require"
    return context


def _redirecting(one: ListenerOptions) -> Json:
    there: Json = {"scheme_redirect": "https", "port_redirect": one.redirect, "response_code": "PERMANENT_REDIRECT"}
    routes = [{"match": {"prefix": "/"}, "redirect": there}]
    manager = typed(
        _MANAGER,
        stat_prefix="redirect",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[extension("toska.router", ".filters.http.router.v3.Router")],
        local_reply_config=local_reply_config(),
        use_remote_address=True,
        normalize_path=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
    )
    return {"name": "toska.http", "typed_config": manager}

"""The HTTP connection manager of a listener, with what Envoy's guide for edge proxies asks for.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge
"""

from collections.abc import Iterable
from math import ceil
from typing import Final

from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing import RouteTable
from toska_common.envoy import clients
from toska_common.envoy.access import cidr
from toska_common.envoy.headers import FLEETING, SPOOFED
from toska_common.envoy.options import Options
from toska_common.envoy.replies import local_reply_config
from toska_common.envoy.telling import access_logs, tracing
from toska_common.envoy.words import Json, extension, seconds, typed

_MANAGER: Final = ".filters.network.http_connection_manager.v3.HttpConnectionManager"
_MUTATION: Final = ".http.early_header_mutation.header_mutation.v3.HeaderMutation"
_XFF: Final = ".http.original_ip_detection.xff.v3.XffConfig"
_MOST_KB: Final = 8192
_STREAMS: Final = {
    "max_concurrent_streams": 100,
    "initial_stream_window_size": 65536,
    "initial_connection_window_size": 1_048_576,
}
"""What a client may have open at once, and send before it is read: the guide's bounds."""


def _all_but(word: str) -> str:
    """An expression for every text but one, whatever its case: RE2 cannot say that shorter."""
    parts = [f"{word[:at]}(?:[^{letter}].*)?" for at, letter in enumerate(word)]
    return f"(?i)(?:{'|'.join(parts)}|{word}.+)"


_OTHERS: Final = _all_but("websocket")
"""Protocols that nobody switches to: the request goes on without."""


def connection_manager(
    table: RouteTable, options: Options, routes: str, chain: list[Json], *, trusted: bool, http3: bool = False
) -> Json:
    """The network filter of the route configuration `routes`; what `trusted` peers say about clients is believed.

    `chain` are the HTTP filters that all listeners have.
    """
    limits = table.server.limits
    filters = chain
    if clients.is_told(table):
        filters = clients.always_there([*(clients.of_requests() if trusted else ()), *chain])
    manager = typed(
        _MANAGER,
        codec_type="HTTP3" if http3 else "AUTO",
        stat_prefix="edge",
        rds={"route_config_name": routes, "config_source": options.source("routes", routes)},
        http_filters=filters,
        common_http_protocol_options={
            "idle_timeout": seconds(limits.idle_timeout),
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": limits.headers,
        },
        http_protocol_options={
            "accept_http_10": True,
            "default_host_for_http_10": options.pseudonym,
            "allow_absolute_url": True,
            "ignore_http_11_upgrade": [{"safe_regex": {"regex": _OTHERS if _switches(table) else ".*"}}],
        },
        http2_protocol_options=_STREAMS,
        max_request_headers_kb=min(_MOST_KB, ceil(limits.header_bytes / 1024)),
        request_headers_timeout=seconds(limits.header_timeout),
        stream_idle_timeout=seconds(limits.body_timeout),
        delayed_close_timeout="0.25s",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        strip_trailing_host_dot=True,
        server_header_transformation="PASS_THROUGH",
        generate_request_id=True,
        upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}] if _switches(table) else [],
        local_reply_config=local_reply_config(),
        access_log=access_logs(table, options),
        tracing=tracing(table.server.tracing),
        **(_believing(table) if trusted else _doubting()),
    )
    if http3:
        manager["http3_protocol_options"] = {}
    return {"name": "toska.http", "typed_config": manager}


def _switches(table: RouteTable) -> bool:
    return any(route.policies.upgrade for route in table.routes)


def _doubting() -> Json:
    """For strangers: what they say about who asked is dropped, and their own address is told."""
    return {
        "use_remote_address": True,
        "skip_xff_append": True,
        "early_header_mutation_extensions": [_without((*SPOOFED, *FLEETING))],
    }


def _believing(table: RouteTable) -> Json:
    networks = [network for network in table.server.trusted_proxies if network != UNIX_PREFIX]
    config: Json = {"skip_xff_append": True}
    if networks:
        config["xff_trusted_cidrs"] = {"cidrs": [cidr(network) for network in networks]}
    else:
        config["xff_num_trusted_hops"] = 0
    return {
        "use_remote_address": False,
        "original_ip_detection_extensions": [extension("toska.xff", _XFF, **config)],
        "preserve_external_request_id": True,
        "early_header_mutation_extensions": [_without(("x-toska-caller", "x-toska-mirror", *FLEETING))],
    }


def _without(names: Iterable[str]) -> Json:
    return extension("toska.strip", _MUTATION, mutations=[{"remove": name} for name in names])

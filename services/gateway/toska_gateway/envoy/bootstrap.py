"""What an Envoy is started with: where its configuration and its administration are, and its bounds as a whole."""

from pathlib import Path
from typing import Any, Final

from toska_common.envoy.options import RUNTIME
from toska_common.envoy.telling import PREFIX, WATCHED_TIME
from toska_common.envoy.words import extension, pipe, typed
from toska_common.latencies import BOUNDS, BOUNDS_US

_ADS: Final = "toska-ads"
_CONNECTIONS: Final = 50_000
"""Open at once over all listeners; each listener has a bound of its own besides (`server.limits.connections`)."""


def bootstrap(ads: Path, admin: Path, node: str) -> dict[str, Any]:
    """The configuration of the start; everything else comes from the socket `ads`, and changes."""
    return {
        "node": {"id": node, "cluster": "toska-gateway"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": _ADS}}],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [_ads_cluster(ads)]},
        "stats_flush_on_admin": True,
        "stats_config": {
            "histogram_bucket_settings": [
                # The first that fits counts: this one is in microseconds, and all others are in milliseconds.
                {"match": {"prefix": f"{PREFIX}.{WATCHED_TIME}"}, "buckets": [float(bound) for bound in BOUNDS_US]},
                {"match": {"safe_regex": {"regex": ".*"}}, "buckets": [round(bound * 1000, 6) for bound in BOUNDS]},
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    ".resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=str(_CONNECTIONS),
                )
            ],
        },
        "layered_runtime": {
            "layers": [
                {"name": "toska", "static_layer": RUNTIME},
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }


def _ads_cluster(socket: Path) -> dict[str, Any]:
    options = typed(".upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
    members = [{"endpoint": {"address": pipe(str(socket))}}]
    return {
        "name": _ADS,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": _ADS, "endpoints": [{"lb_endpoints": members}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }

"""What an Envoy or a gRPC client is started with, so that this router tells it the rest."""

from typing import Any

from toska_common.envoy.options import RUNTIME

_TYPES = "type.googleapis.com/"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_DOWNSTREAM = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_XDS = "toska-xds"
_TO_US = {"envoy_grpc": {"cluster_name": _XDS}}
_CONNECTIONS = 50_000
"""Open at once over all listeners: Envoy's guide for edges asks for a bound, and has none by default."""


def envoy_bootstrap(host: str, port: int, *, node: str, admin_port: int, report_loads: bool = False) -> dict[str, Any]:
    """For `envoy -c`: incremental, on one stream, with Envoy's administration on this machine alone."""
    ads: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}
    http2 = {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
    reports = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [_TO_US]}
    return {
        "node": {"id": node, "cluster": "toska"},
        **({"cluster_manager": {"load_stats_config": reports}} if report_loads else {}),
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [_TO_US],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPES + _DOWNSTREAM,
                        "max_active_downstream_connections": str(_CONNECTIONS),
                    },
                }
            ]
        },
        "layered_runtime": {"layers": [{"name": "toska", "static_layer": RUNTIME}]},
        "static_resources": {
            "clusters": [
                {
                    "name": _XDS,
                    "type": "STRICT_DNS",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        _HTTP: {"@type": _TYPES + _HTTP, "explicit_http_config": {"http2_protocol_options": http2}}
                    },
                    "load_assignment": {
                        "cluster_name": _XDS,
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
                                ]
                            }
                        ],
                    },
                }
            ]
        },
    }


def grpc_bootstrap(host: str, port: int, *, node: str) -> dict[str, Any]:
    """For `GRPC_XDS_BOOTSTRAP`."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {
        "xds_servers": [
            {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        ],
        "node": {"id": node, "cluster": "toska"},
    }

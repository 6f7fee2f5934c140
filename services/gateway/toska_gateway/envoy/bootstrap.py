"""What an Envoy is started with: where its configuration and its administration are, and its bounds as a whole."""

from pathlib import Path
from typing import Any, Final

from toska_common.envoy.words import extension

from toska_gateway.worker.stats import BOUNDS

_CONNECTIONS: Final = 50_000
"""Open at once over all listeners; each listener has a bound of its own besides (`server.limits.connections`)."""


def bootstrap(folder: Path, admin: Path, node: str) -> dict[str, Any]:
    """The configuration of the start; everything else comes from files in `folder`, and changes."""
    return {
        "node": {"id": node, "cluster": "toska-gateway"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": source(folder / "listeners.json"),
            "cds_config": source(folder / "clusters.json"),
        },
        "stats_flush_on_admin": True,
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"safe_regex": {"regex": ".*"}}, "buckets": [round(bound * 1000, 6) for bound in BOUNDS]}
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
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }


def source(path: Path) -> dict[str, Any]:
    """A resource that comes from a file, and anew whenever another file takes its place."""
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}

"""Copies of requests for a shadow cluster."""

from toska_common.contracts.routing import Mirror
from toska_common.envoy.words import Json, fraction, header


def mirror_policy(mirror: Mirror) -> Json:
    """Of a route's action."""
    return {
        "cluster": mirror.cluster,
        "runtime_fraction": {"default_value": fraction(mirror.percent)},
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": header("x-toska-mirror", "true")}],
    }

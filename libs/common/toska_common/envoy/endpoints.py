"""Endpoints of clusters as Envoy's load assignments."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from toska_common.contracts.names import UNIX_PREFIX, is_unix
from toska_common.contracts.routing import Cluster, Endpoint
from toska_common.envoy.words import Json, pipe, socket_address

_MAX_WEIGHT = 65535


def is_name(address: str) -> bool:
    """Whether an address has to be looked up."""
    if is_unix(address):
        return False
    try:
        ip_address(address)
    except ValueError:
        return True
    return False


def has_names(endpoints: Iterable[Endpoint]) -> bool:
    """Whether any endpoint has to be looked up."""
    return any(is_name(endpoint.address) for endpoint in endpoints)


def load_assignment(name: str, cluster: Cluster, endpoints: Sequence[Endpoint]) -> Json:
    """The endpoints of one cluster; those of its own zone go first, and others help out as the zone fails."""
    groups: dict[tuple[int, str], list[Json]] = {}
    for endpoint in endpoints:
        far = int(bool(cluster.zone) and endpoint.zone != cluster.zone)
        groups.setdefault((far, endpoint.zone), []).append(_endpoint(endpoint, cluster))
    # Envoy wants priorities without a gap: with nobody in the zone the others come first.
    lowest = min((far for far, _ in groups), default=0)
    localities = [
        {
            **({"locality": {"zone": zone}} if zone else {}),
            "priority": far - lowest,
            "lb_endpoints": members,
        }
        for (far, zone), members in sorted(groups.items())
    ]
    return {"cluster_name": name, "endpoints": localities}


def _endpoint(endpoint: Endpoint, cluster: Cluster) -> Json:
    if is_unix(endpoint.address):
        address = pipe(endpoint.address.removeprefix(UNIX_PREFIX))
    else:
        address = socket_address(endpoint.address, endpoint.port)
    inner: Json = {"address": address}
    if cluster.tls is not None:
        inner["hostname"] = endpoint.address
    return {"endpoint": inner, "load_balancing_weight": min(endpoint.weight, _MAX_WEIGHT)}

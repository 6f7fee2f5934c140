"""Endpoints of clusters as Envoy's load assignments."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from toska_common.contracts.names import UNIX_PREFIX, is_unix
from toska_common.contracts.routing import Cluster, Endpoint
from toska_common.envoy.failovers import Share
from toska_common.envoy.options import Options
from toska_common.envoy.words import Json, pipe, socket_address

_MAX_WEIGHT = 65535


@lru_cache(maxsize=1 << 17)
def is_name(address: str) -> bool:
    """Whether an address has to be looked up; remembered, since each table asks it of all 100,000 again."""
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


def load_assignment(
    name: str, cluster: Cluster, endpoints: Sequence[Endpoint], options: Options, share: Share | None = None
) -> Json:
    """The endpoints of one cluster; those of its own zone go first, and others help out as the zone fails.

    `share` is what it carries, if others take over from it, or it from others.
    """
    groups: dict[tuple[int, str], list[Json]] = {}
    for endpoint in endpoints:
        far = int(bool(cluster.zone) and endpoint.zone != cluster.zone)
        placed = _endpoint(endpoint, cluster, options)
        if placed is not None:
            groups.setdefault((far, endpoint.zone), []).append(placed)
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
    made: Json = {"cluster_name": name, "endpoints": localities}
    if share is not None:
        made["policy"] = {"overprovisioning_factor": share.overprovisioning(len(endpoints))}
    return made


def _endpoint(endpoint: Endpoint, cluster: Cluster, options: Options) -> Json | None:
    if is_unix(endpoint.address):
        address = pipe(endpoint.address.removeprefix(UNIX_PREFIX))
        return _weighted(endpoint, {"address": address})
    addresses: Sequence[str] = (endpoint.address,)
    if options.addresses is not None and is_name(endpoint.address):
        addresses = options.addresses(endpoint)
        if not addresses:
            return None
    first, *others = (socket_address(address, endpoint.port) for address in addresses)
    inner: Json = {"address": first}
    if others:
        inner["additional_addresses"] = [{"address": other} for other in others]
    if cluster.tls is not None or is_name(endpoint.address):
        inner["hostname"] = endpoint.address
    return _weighted(endpoint, inner)


def _weighted(endpoint: Endpoint, inner: Json) -> Json:
    return {"endpoint": inner, "load_balancing_weight": min(endpoint.weight, _MAX_WEIGHT)}

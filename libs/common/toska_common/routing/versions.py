"""Versions that any two routers of the same inputs agree on: hashes of the canonical content.

Only what differs from the defaults is hashed and sent, so a field that a newer release adds changes no version until
somebody uses it.

A table's version, and a snapshot's, come from sums over their parts: each part is a hash of its name, its version and,
of routes, of the name before it, which is what their order is. So a change of one part subtracts one number and adds
another, however many parts there are, and whoever adds all of them up comes to the same.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from toska_common.contracts import Document
from toska_common.contracts.routing import Endpoint, RouteTable, Snapshot
from toska_common.routing.memory import Memo
from toska_common.routing.placing import FIRST

_MODULUS: Final = 1 << 256
_RESOURCES: Final = Memo[Document, str]()
_TABLES: Final = Memo[RouteTable, "TableDigest"]()
_POOLS: Final = Memo[Snapshot, int]()


@dataclass(frozen=True, slots=True)
class TableDigest:
    """What a table's version is made of: the version of its server settings, and sums over clusters and routes."""

    server: str
    clusters: int
    routes: int

    @property
    def version(self) -> str:
        """The version of a table with this digest."""
        return _short(f"{self.server} {self.clusters % _MODULUS:x} {self.routes % _MODULUS:x}")


def content_version(content: Any) -> str:
    """A version for JSON-able `content`: 16 hex digits of SHA-256 over its canonical form (sorted keys, no spaces)."""
    return _short(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def resource_version(resource: Document) -> str:
    """The version of one route or cluster; worked out once for each, since 10,000 take 0.15 s."""
    known = _RESOURCES.get(resource)
    if known is None:
        known = content_version(resource.model_dump(mode="json", exclude_defaults=True))
        _RESOURCES.put(resource, known)
    return known


def table_version(table: RouteTable) -> str:
    """The version of a table: its routes in their order, its clusters, and the listener's settings."""
    return table_digest(table).version


def table_digest(table: RouteTable) -> TableDigest:
    """What the table's version is made of; of one that was made by a change of another, that is known already."""
    known = _TABLES.get(table)
    if known is not None:
        return known
    server = resource_version(table.server)
    clusters = {name: resource_version(cluster) for name, cluster in table.clusters.items()}
    routes = {route.name: resource_version(route) for route in table.routes}
    return _TABLES.put(table, inventory_digest(server, clusters, routes))


def remember_digest(table: RouteTable, digest: TableDigest) -> None:
    """Tell what the digest of a table is."""
    _TABLES.put(table, digest)


def inventory_digest(server: str, clusters: Mapping[str, str], routes: Mapping[str, str]) -> TableDigest:
    """The digest of a table whose resources have these versions, by name; the routes in their order."""
    before = chain((FIRST,), routes)
    return TableDigest(
        server,
        sum(cluster_weight(name, version) for name, version in clusters.items()),
        sum(route_weight(last, name, version) for last, (name, version) in zip(before, routes.items(), strict=False)),
    )


def snapshot_version(snapshot: Snapshot) -> str:
    """One version for a table and the endpoints of its clusters."""
    return joined_version(snapshot.routes_version, pools_sum(snapshot))


def joined_version(routes_version: str, pools: int) -> str:
    """The same, of a table's version and the sum over the clusters' endpoints."""
    return _short(f"{routes_version} {pools % _MODULUS:x}")


def pools_sum(snapshot: Snapshot) -> int:
    """The sum over the endpoints of a snapshot's clusters; as with a table's digest it may be known already."""
    known = _POOLS.get(snapshot)
    if known is None:
        known = _POOLS.put(snapshot, sum_pools({name: pool.version for name, pool in snapshot.endpoints.items()}))
    return known


def remember_pools(snapshot: Snapshot, total: int) -> None:
    """Tell what `pools_sum` is of a snapshot."""
    _POOLS.put(snapshot, total)


def sum_pools(versions: Mapping[str, str]) -> int:
    """The sum over endpoints that have these versions, by cluster."""
    return sum(pool_weight(name, version) for name, version in versions.items())


def endpoints_version(endpoints: Iterable[Endpoint]) -> str:
    """The version of a cluster's endpoints, in the order given (`snapshot.pool` sorts them)."""
    return content_version([_told(item) for item in endpoints])


def _told(item: Endpoint) -> tuple[str | int, ...]:
    told = item.id, item.address, item.port, item.weight
    return (*told, item.zone) if item.zone else told


# Words apart by spaces, which no name has; an empty one stands for the beginning.


def cluster_weight(name: str, version: str) -> int:
    """What a cluster adds to the sum."""
    return _weight(f"cluster {name} {version}")


def route_weight(before: str, name: str, version: str) -> int:
    """What a route adds, which stands after the one of the name `before`, or `FIRST`."""
    return _weight(f"route {before} {name} {version}")


def pool_weight(cluster: str, version: str) -> int:
    """What a cluster's endpoints add."""
    return _weight(f"pool {cluster} {version}")


def _weight(words: str) -> int:
    return int.from_bytes(hashlib.sha256(words.encode()).digest(), "big")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

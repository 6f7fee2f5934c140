"""Versions that any two routers of the same inputs agree on: hashes of the canonical content.

Only what differs from the defaults is hashed and sent, so a field that a newer release adds changes no version until
somebody uses it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from toska_common.contracts import Document
from toska_common.contracts.routing import Endpoint, RouteTable


def content_version(content: Any) -> str:
    """A version for JSON-able `content`: 16 hex digits of SHA-256 over its canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def resource_version(resource: Document) -> str:
    """The version of one route or cluster."""
    return content_version(resource.model_dump(mode="json", exclude_defaults=True))


class ResourceVersions:
    """Versions of resources that do not change, remembered for as long as a table has them.

    Hashing a table of 10,000 routes takes 0.15 s, and after a change all but one of them are the same objects.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Document, str]] = {}

    def of(self, resource: Document) -> str:
        """`resource_version`, worked out once."""
        known = self._known.get(id(resource))
        if known is None:
            known = self._known[id(resource)] = (resource, resource_version(resource))
        return known[1]

    def of_table(self, table: RouteTable) -> str:
        """`table_version`; what other tables had is forgotten."""
        version = table_version(table, self.of)
        resources = (table.server, *table.clusters.values(), *table.routes)
        self._known = {id(resource): self._known[id(resource)] for resource in resources}
        return version


def table_version(table: RouteTable, version_of: Callable[[Document], str] = resource_version) -> str:
    """The version of a table: its routes in their order, its clusters, and the listener's settings."""
    parts = {
        "server": version_of(table.server),
        "clusters": {name: version_of(cluster) for name, cluster in table.clusters.items()},
        "routes": [version_of(route) for route in table.routes],
    }
    return content_version(parts)


def endpoints_version(endpoints: Iterable[Endpoint]) -> str:
    """The version of a cluster's endpoints, in the order given (`snapshot.pool` sorts them)."""
    return content_version([(item.id, item.address, item.port, item.weight) for item in endpoints])

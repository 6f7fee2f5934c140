"""Versions that any two routers of the same inputs agree on: hashes of the canonical content.

Only what differs from the defaults is hashed and sent, so a field that a newer release adds changes no version until
somebody uses it.
"""

import hashlib
import json
from collections.abc import Iterable
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


def table_version(table: RouteTable) -> str:
    """The version of a table: its routes in their order, its clusters, and the listener's settings."""
    parts = {
        "server": resource_version(table.server),
        "clusters": {name: resource_version(cluster) for name, cluster in table.clusters.items()},
        "routes": [resource_version(route) for route in table.routes],
    }
    return content_version(parts)


def endpoints_version(endpoints: Iterable[Endpoint]) -> str:
    """The version of a cluster's endpoints, in the order given (`snapshot.pool` sorts them)."""
    return content_version([(item.id, item.address, item.port, item.weight) for item in endpoints])

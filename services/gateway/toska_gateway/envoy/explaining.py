"""What Envoy would do with a request, told by our own matcher over the routing that Envoy serves.

Envoy does not say whom it would choose. But it has been told the routing that our own workers would compile, so a plane
of theirs without sockets is asked, with what Envoy says of its endpoints. Where Envoy goes by a rule of its own the
answer does not pretend to know, and notes say so.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from anyio.lowlevel import checkpoint
from toska_common.contracts.routing import Cluster, Route, RouteTable, Snapshot
from toska_common.targets import TargetRules

from toska_gateway.wire import Known, messages, owned_by_the_mesh
from toska_gateway.worker.explaining import explain
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging

Hosts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""What Envoy says of endpoints, by cluster and key (`Readings.hosts`)."""
_BY_KEY: Final = ("ip_hash", "ring_hash", "maglev")
_BY_HASH: Final = (
    "a key always has the same endpoint, by Envoy's own hash, which it does not tell; shares are by weight"
)
_BY_COOKIE: Final = "a client with Envoy's affinity cookie has the endpoint that it names; shares are those of others"
_NOT_REFUSED: Final = "our own parser says so; Envoy mends or takes some of what it refuses (docs/envoy.md)"
_UNDERSCORES: Final = "Envoy refuses requests whose fields have underscores in their names"
_ENCODED: Final = "Envoy holds expressions and exact paths to the path as it is sent, and here that is escaped"
_FIRST: Final = "of several parameters of a name Envoy holds the first to an expression"


class Explainer:
    """Explains by one snapshot."""

    def __init__(self, snapshot: Snapshot, plane: Plane) -> None:
        self.snapshot = snapshot
        self._plane = plane

    @classmethod
    async def of(cls, snapshot: Snapshot) -> "Explainer":
        """Compile what a worker would, a little at a time."""
        plane = Plane(asyncio.get_running_loop(), TargetRules())
        staging = Staging(plane)
        told = snapshot.model_copy(update={"table": _without_keys(snapshot.table)})
        for message in messages(Known(), told, owned_by_the_mesh(snapshot.table.clusters)):
            staging.take(message)
            await checkpoint()  # others have this loop too
        staging.commit()
        return cls(snapshot, plane)

    def explain(self, request: bytes, peer: str, scheme: str, hosts: Hosts) -> dict[str, Any]:
        """What would become of a request, in the words of `toska_gateway.worker.explaining`."""
        for name, cluster in self._plane.clusters.items():
            ill = (key for key, values in hosts.get(name, {}).items() if values["ejected"] or values["unhealthy"])
            cluster.judge(frozenset(ill), self._plane.now)
        told: dict[str, Any] = {**explain(self._plane, request, peer, scheme), "engine": "envoy"}
        if any("_" in name for name in _field_names(request)):
            return {
                "engine": "envoy",
                "outcome": "refused",
                "status": 400,
                "error": "bad-request",
                "detail": _UNDERSCORES,
            }
        if told["outcome"] == "refused":
            told["notes"] = [_NOT_REFUSED]
        choices: list[dict[str, Any]] = told.get("clusters", [])
        for cluster in choices:
            _as_envoy_says(cluster, hosts.get(cluster["name"], {}))
        rank: int | None = told.get("rank")
        if rank is not None:
            told["notes"] = [*self._notes(self.snapshot.table.routes[rank], request)]
        return told

    def _notes(self, route: Route, request: bytes) -> Iterator[str]:
        clusters = [
            self.snapshot.table.clusters[part.cluster]
            for part in route.to
            if part.cluster in self.snapshot.table.clusters
        ]
        if any(_has_key(cluster) for cluster in clusters):
            yield _BY_HASH
        if any(cluster.affinity is not None for cluster in clusters):
            yield _BY_COOKIE
        path, _, query = _target(request).partition("?")
        match = route.match
        if (match.path is not None or match.path_regex is not None) and unquote(path) != path:
            yield _ENCODED
        names = [pair.partition("=")[0] for pair in query.split("&")]
        if any(names.count(name) > 1 for name, value in match.query.items() if value.regex is not None):
            yield _FIRST


def _has_key(cluster: Cluster) -> bool:
    return cluster.balancer in _BY_KEY


def _without_keys(table: RouteTable) -> RouteTable:
    """The table for a plane that writes no log, and chooses no endpoint by a hash or a cookie that is not Envoy's."""
    by_weight = {"balancer": "round_robin", "hash_key": None, "affinity": None}
    clusters = {
        name: cluster.model_copy(update=by_weight) if _has_key(cluster) or cluster.affinity is not None else cluster
        for name, cluster in table.clusters.items()
    }
    server = table.server.model_copy(update={"access_log": None, "tracing": None})
    return table.model_copy(update={"clusters": clusters, "server": server})


def _as_envoy_says(cluster: dict[str, Any], hosts: Mapping[str, Mapping[str, int]]) -> None:
    cluster["connections"] = sum(values["idle"] + values["active"] for values in hosts.values())
    for endpoint in cluster.get("endpoints", ()):
        values = hosts.get(endpoint["key"])
        if values is None:
            endpoint["state"] += "; Envoy does not know it: it is refused here, or has not been taken over yet"
            continue
        endpoint["active"] = values["active"]
        if values["ejected"]:
            endpoint["state"] = "ejected by Envoy for failures in a row"


def _field_names(request: bytes) -> list[str]:
    lines = request.decode("latin-1").split("\r\n")[1:]
    return [line.partition(":")[0] for line in lines]


def _target(request: bytes) -> str:
    parts = request.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return parts[1] if len(parts) > 1 else ""

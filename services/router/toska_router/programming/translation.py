"""The router's snapshots as xDS resources: for Envoys all of the routing, for gRPC's clients a target for each cluster.

What is the same as before is neither translated nor encoded again: a change of one endpoint is one resource. A table
that Envoy cannot serve as it is written is not sent in part; Envoys go on with the last one that they can serve, with
its endpoints kept up to date, and `problems` says why. Pure, and slow for large tables: to be called in a thread.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from toska_common.contracts.names import is_unix
from toska_common.contracts.routing import ClusterEndpoints, RouteTable, Snapshot
from toska_common.envoy import (
    Judged,
    Options,
    Resources,
    RouteEncoder,
    RouteParts,
    find_refusals,
    translate,
    translate_endpoints,
)
from toska_common.envoy.clusters import Uses, cluster_resource, uses_of
from toska_common.envoy.failovers import Shares, shares_of
from toska_common.envoy.messages import message
from toska_common.routing.pools import changed_pools
from toska_common.routing.problems import Finding

from toska_router.programming.routed_targets import Key, RoutedTargets, encode_target
from toska_router.xds.resources import Resource, ResourceSet, encode_resource
from toska_router.xds.targets import TargetEndpoint, build_target
from toska_router.xds.types import ROUTE

Json = Mapping[str, Any]


class Translation:
    """Translates one snapshot after another.

    Args:
        options: Of the Envoys.
        report_loads: Whether gRPC's clients are to report what they send.
    """

    def __init__(self, options: Options, *, report_loads: bool = False) -> None:
        self._report_loads = report_loads
        self.problems: tuple[Finding, ...] = ()
        self._options = options
        self._set = ResourceSet()
        self._judged: RouteTable | None = None
        self._table: RouteTable | None = None
        self._pools: Mapping[str, ClusterEndpoints] = {}
        self._written: dict[Key, Json] = {}
        self._envoys: dict[Key, Resource] = {}
        self._judged_routes = Judged()
        self._parts = RouteParts()
        self._routes = RouteEncoder()
        self._targets: dict[str, tuple[str, dict[Key, Resource]]] = {}
        self._said: tuple[Uses, Shares] = {}, {}
        self._aimed: Snapshot | None = None
        self.routed = RoutedTargets()

    def update(self, snapshot: Snapshot) -> ResourceSet:
        """What clients are to have from now on.

        Raises:
            NotOfTheApi: A resource is not of the API's form.
        """
        table = snapshot.table
        if self._aimed is not None and table is self._aimed.table:
            return self._move(changed_pools(self._aimed, snapshot), snapshot)
        if table is not self._judged:
            self.problems = tuple(find_refusals(table, self._judged_routes))
            self._judged = table
        self._translate(self._table if self.problems else table, snapshot.endpoints)
        self._aim(snapshot)
        self._set = self._assemble()
        self._aimed = snapshot
        return self._set

    def _move(self, clusters: Iterable[str], snapshot: Snapshot) -> ResourceSet:
        """The same where nothing but the endpoints of some clusters is different."""
        names = [*clusters]
        changes: dict[Key, Resource | None] = dict.fromkeys(key for name in names for key in self._resources_of(name))
        self._translate(self._table, snapshot.endpoints, names)
        for name in names:
            self._aim_at(name, snapshot.endpoints.get(name))
            changes |= self._resources_of(name)
        by_type: dict[str, dict[str, Resource | None]] = {}
        for (url, name), resource in changes.items():
            by_type.setdefault(url, {})[name] = resource
        changed = {url: self._set.of(url).changed(found) for url, found in by_type.items()}
        self._set = ResourceSet({**self._set.by_type, **changed})
        self._aimed = snapshot
        return self._set

    def _resources_of(self, cluster: str) -> dict[Key, Resource]:
        """What there is of a cluster, for Envoys and for gRPC's clients."""
        _, target = self._targets.get(cluster, ("", {}))
        of_target = {key: resource for key, resource in target.items() if key not in self._envoys}
        keys = ((url, cluster) for url in _OF_CLUSTERS)
        return of_target | {key: self._envoys[key] for key in keys if key in self._envoys}

    def _translate(
        self, table: RouteTable | None, pools: Mapping[str, ClusterEndpoints], moved: Iterable[str] | None = None
    ) -> None:
        """Bring what Envoys have up to date; `moved` are the clusters with other endpoints, if that is known."""
        if table is None:
            return
        if table is not self._table:
            made = _by_key(translate(table, pools, self._options, self._parts))
            self._envoys = {key: self._encode(key, json) for key, json in made.items()}
            self._written = made
            self._table, self._pools = table, pools
            self._said = uses_of(table), shares_of(table)
            return
        names = table.clusters if moved is None else [name for name in moved if name in table.clusters]
        changed = [name for name in names if pools.get(name) is not self._pools.get(name)]
        if not changed:
            return
        known = {name: pools[name].endpoints if name in pools else () for name in changed}
        uses, shares = self._said
        made = _by_key(
            Resources(
                clusters={
                    name: cluster_resource(name, table, known[name], self._options, uses, shares) for name in changed
                },
                endpoints=translate_endpoints(
                    {name: table.clusters[name] for name in changed}, known, self._options, shares
                ),
            )
        )
        for name in changed:
            for type_url in _OF_CLUSTERS:
                if (type_url, name) not in made:
                    self._envoys.pop((type_url, name), None)
                    self._written.pop((type_url, name), None)
        self._envoys |= {key: self._encode(key, json) for key, json in made.items()}
        self._written |= made
        self._pools = pools

    def _encode(self, key: Key, json: Json) -> Resource:
        type_url, name = key
        if self._written.get(key) == json:
            return self._envoys[key]
        made = _Encoded(self._routes.encode(json)) if type_url == ROUTE else message(type_url, json)
        return encode_resource(type_url, name, made, self._envoys.get(key))

    def _aim(self, snapshot: Snapshot) -> None:
        """Make a target of each cluster, for `xds:///CLUSTER`, and of each host that routes have."""
        self.routed.update(snapshot.table)
        for gone in self._targets.keys() - snapshot.table.clusters.keys():
            del self._targets[gone]
        for name in snapshot.table.clusters:
            self._aim_at(name, snapshot.endpoints.get(name))

    def _aim_at(self, cluster: str, pool: ClusterEndpoints | None) -> None:
        version = "" if pool is None else pool.version
        known = self._targets.get(cluster)
        if known is None or known[0] != version:
            made = build_target(cluster, _members(pool), report_loads=self._report_loads)
            self._targets[cluster] = version, encode_target(made, {} if known is None else known[1])

    def _assemble(self) -> ResourceSet:
        by_type: dict[str, list[Resource]] = {}
        for (type_url, _), resource in self._envoys.items():
            by_type.setdefault(type_url, []).append(resource)
        for resources in (*(found for _, found in self._targets.values()), *self.routed.resources(self._targets)):
            for key, resource in resources.items():
                if key not in self._envoys:
                    by_type.setdefault(key[0], []).append(resource)
        return ResourceSet({url: self._set.of(url).replaced_by(found) for url, found in by_type.items()})


class _Encoded:
    """A message of which only the bytes were ever made."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def SerializeToString(self, *, deterministic: bool = True) -> bytes:  # noqa: N802 - protobuf's name
        """The message on the wire."""
        _ = deterministic
        return self._value


_OF_CLUSTERS = tuple(url for url in Resources().by_type() if url.endswith((".Cluster", ".ClusterLoadAssignment")))


def _by_key(resources: Resources) -> dict[Key, Json]:
    return {(url, name): json for url, found in resources.by_type().items() for name, json in found.items()}


def _members(pool: ClusterEndpoints | None) -> Iterable[TargetEndpoint]:
    for endpoint in () if pool is None else pool.endpoints:
        if not is_unix(endpoint.address) and endpoint.weight > 0:
            yield TargetEndpoint(endpoint.address, endpoint.port, endpoint.weight, endpoint.zone)

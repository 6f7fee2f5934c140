"""Active health checks of clusters: one prober for all workers of a gateway, which are told whom to leave out.

In the parent and not in each worker: an endpoint is asked once an interval however many workers there are, all of them
agree, one that starts has the verdicts before its first request, and none spends time on it that requests need. What a
single worker alone cannot reach is left to its own outlier ejection. A loop that stands still fails no check.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from toska_common.contracts.routing import Cluster, RouteTable, Snapshot
from toska_common.routing.pools import changed_pools, with_pools
from toska_common.routing.tables import compare
from toska_common.targets import TargetRules

from toska_gateway.health_verdict import Verdict
from toska_gateway.probe import CheckRules, Probe
from toska_gateway.tls_material import NO_TLS, TlsMaterial
from toska_gateway.wire import Known, messages, plain
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging

log = structlog.get_logger(__name__)

_FIRST_S = 0.1
"""Within so long a new endpoint is checked for the first time, unless there are very many."""
_CHECKS_A_SECOND = 500
"""How fast the first checks of many endpoints go out."""
_JITTER = 0.1
"""Checks come so much earlier or later than their interval says, so that they spread, and stay spread."""

OnChange = Callable[[str, list[str]], None]
"""Told of each change: a cluster, and the keys of all its endpoints that are unhealthy now."""


class _Watch:
    """Checks one endpoint again and again."""

    def __init__(self, prober: "Prober", endpoint: Endpoint, rules: CheckRules, delay: float, verdict: Verdict) -> None:
        self.endpoint = endpoint
        self.rules = rules
        self.verdict = verdict
        self._prober = prober
        self._probe: Probe | None = None
        self._timer = prober.loop.call_later(delay, self._check)

    def stop(self) -> None:
        """Check no more."""
        self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()

    def _check(self) -> None:
        pause = self.rules.interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
        self._timer = self._prober.loop.call_later(pause, self._check)
        if self._probe is None:
            self._probe = Probe(self._prober.plane, self.endpoint, self.rules, self._checked)

    def _checked(self, reason: str | None) -> None:
        self._probe = None
        if reason is None:
            return
        before = self.verdict.healthy
        if self.verdict.record(passed=not reason, rise=self.rules.rise, fall=self.rules.fall):
            self._prober.changed(self, reason, first=before is None)


class Prober:
    """Checks the endpoints of the clusters that ask for it.

    Args:
        rules: Where nobody may be sent, checks included.
        on_change: Told of each change.
    """

    def __init__(self, rules: TargetRules, on_change: OnChange) -> None:
        self.loop = asyncio.get_running_loop()
        self.plane = Plane(self.loop, rules)
        self.plane.draining = True  # a connection that nobody wants any more is closed, and not kept
        self._on_change = on_change
        self._known = Known()
        self._whole: Snapshot | None = None  # of which the known one is a part
        self._watches: dict[str, dict[str, _Watch]] = {}

    @property
    def unhealthy(self) -> dict[str, list[str]]:
        """The keys of unhealthy endpoints, by cluster; of every cluster that is checked."""
        return {name: self._unhealthy_in(name) for name in self._watches}

    def use(
        self,
        snapshot: Snapshot,
        checked: Mapping[str, Cluster],
        mesh_owned: frozenset[str],
        tls: TlsMaterial = NO_TLS,
    ) -> None:
        """Check these clusters of `snapshot`; those that go on being checked keep their verdicts."""
        before, part = self._known.snapshot, self._part(snapshot, checked)
        self._whole = snapshot
        if part is before and tls.version == self._known.tls_version:
            return
        ours = {name: material for name, material in tls.clusters.items() if name in checked}
        touched = checked.keys() if before is None or ours else _touched(before, part)
        self._stage(part, mesh_owned, TlsMaterial(tls.version, clusters=ours))
        for name in [name for name in self._watches if name not in checked]:
            for watch in self._watches.pop(name).values():
                watch.stop()
        for name in touched:
            rules = checked[name].health_check
            assert rules is not None  # noqa: S101 - as chosen by the caller
            self._watch(name, plain(rules.model_dump()))

    def _part(self, snapshot: Snapshot, checked: Mapping[str, Cluster]) -> Snapshot:
        """What of a snapshot matters to checks: their clusters. The same object as before if it has not changed."""
        before, whole = self._known.snapshot, self._whole
        table = RouteTable.model_construct(clusters=checked)
        if before is None or whole is None:
            endpoints = {name: snapshot.endpoints[name] for name in checked}
            return Snapshot.model_construct(routes_version=snapshot.routes_version, table=table, endpoints=endpoints)
        if before.table.clusters is checked:
            table = before.table
        names = changed_pools(whole, snapshot) | (checked.keys() - before.table.clusters.keys())
        pools = {name: snapshot.endpoints[name] for name in names if name in checked}
        if table is before.table and not pools:
            return before
        return with_pools(before, table, snapshot.routes_version, pools)

    def close(self) -> None:
        """Check no more."""
        for watches in self._watches.values():
            for watch in watches.values():
                watch.stop()
        self._watches.clear()

    def changed(self, watch: _Watch, reason: str, *, first: bool) -> None:
        """A verdict is another than before."""
        cluster, endpoint = watch.endpoint.cluster.name, watch.endpoint
        if reason:
            log.warning("endpoint_unhealthy", cluster=cluster, endpoint=str(endpoint), reason=reason)
        elif not first:
            log.info("endpoint_healthy", cluster=cluster, endpoint=str(endpoint))
        if reason or not first:
            self._on_change(cluster, self._unhealthy_in(cluster))

    def _stage(self, snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial) -> None:
        """Bring our own plane to what the workers' are, as far as checks need it."""
        staging = Staging(self.plane)
        for message in messages(self._known, snapshot, mesh_owned, tls):
            staging.take(message)
        problems = staging.commit()
        if problems:  # (never: compiling is deterministic, and they have come first)
            raise RuntimeError(f"workers took what the prober cannot: {problems}")
        self.plane.forget_endpoints()
        self._known = Known(snapshot, tls.version)

    def _watch(self, name: str, settings: dict[str, Any]) -> None:
        """Check exactly the endpoints that the cluster has now, by these settings."""
        cluster, watches = self.plane.clusters[name], self._watches.setdefault(name, {})
        rules = CheckRules(settings)
        left_out = self._unhealthy_in(name)
        gone = {key: watch for key, watch in watches.items() if cluster.endpoints.get(key) is not watch.endpoint}
        for key in gone:
            watches.pop(key).stop()
        fresh = [endpoint for key, endpoint in cluster.endpoints.items() if key not in watches]
        for watch in watches.values():
            watch.rules = rules
        spread = min(rules.interval, max(_FIRST_S, len(fresh) / _CHECKS_A_SECOND))
        for endpoint in fresh:
            before = gone.get(endpoint.key)  # the same address, spoken to by another TLS, is as well as it was
            known = before is not None and str(before.endpoint) == str(endpoint)
            verdict = before.verdict if before is not None and known else Verdict()
            delay = random.uniform(0.0, spread)  # noqa: S311 - as above
            watches[endpoint.key] = _Watch(self, endpoint, rules, delay, verdict)
        if self._unhealthy_in(name) != left_out:
            self._on_change(name, self._unhealthy_in(name))

    def _unhealthy_in(self, name: str) -> list[str]:
        return [key for key, watch in self._watches.get(name, {}).items() if watch.verdict.healthy is False]


def _touched(before: Snapshot, part: Snapshot) -> frozenset[str]:
    changed = compare(before.table, part.table).clusters | changed_pools(before, part)
    return changed & part.table.clusters.keys()

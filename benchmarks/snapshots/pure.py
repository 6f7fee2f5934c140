"""Snapshots by themselves: built from nothing, and changed by one endpoint or one route, at both ends of the wire."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    Match,
    Route,
    RoutingDocument,
    Snapshot,
    SnapshotDelta,
    WeightedCluster,
)
from toska_common.routing.delta import apply_delta, build_delta
from toska_common.routing.history import History
from toska_common.routing.pools import pool
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_gateway.routing import check_change

from benchmarks.figures import Record

ENDPOINTS = 10
"""Of each cluster."""
_REPEATS = 5
T = TypeVar("T")


class Change(Record):
    """One change: what the router does until it can be sent, its size, and what a gateway's parent does with it."""

    router_ms: float
    sent_bytes: int
    gateway_ms: float


class Pure(Record):
    """A table of so many routes, each to a cluster of its own. The memory is what a router holds of it."""

    routes: int
    endpoints: int
    build_ms: float
    whole_bytes: int
    encode_ms: float
    decode_ms: float
    memory_mib: float
    endpoint: Change
    route: Change


class _Router:
    """The router's side: inputs, snapshots and history."""

    def __init__(self, size: int) -> None:
        self.routes = {f"r{number}": _route(number, f"c{number}") for number in range(size)}
        self.clusters = {f"c{number}": Cluster(service=f"s{number}") for number in range(size)}
        self.pools = {f"s{number}": pool(_endpoints(number, 8000)) for number in range(size)}
        self.history = History()
        self.snapshot: Snapshot | None = None

    def compose(self) -> Snapshot:
        """The snapshot of what holds now, remembered as the newest."""
        before = self.snapshot
        table = before.table if before is not None else None
        if table is None or self._changed(table.routes):
            table = build_table(RoutingDocument(clusters=self.clusters, routes=tuple(self.routes.values())))
        after = build_snapshot(table, self.pools, previous=before)
        if before is not None:
            self.history.record(before.version, before, after)
        self.snapshot = after
        return after

    def _changed(self, had: tuple[Route, ...]) -> bool:
        return any(self.routes[route.name] is not route for route in had)


def measure(size: int) -> Pure:
    """Measure a table of `size` routes; medians of a few repeats."""
    before_mib = _held_mib()
    router = _Router(size)
    build_ms, first = _timed(router.compose)
    memory = _held_mib() - before_mib
    encode_ms, whole = _timed(lambda: _encode(build_delta("", None, first, first.version)))
    decode_ms, has = _timed(lambda: apply_delta(None, SnapshotDelta.model_validate_json(whole)))
    gateway = _Gateway(has)
    endpoint = [_change(router, gateway, lambda turn=turn: _move_endpoint(router, turn)) for turn in range(_REPEATS)]
    route = [_change(router, gateway, lambda turn=turn: _redirect_route(router, turn)) for turn in range(_REPEATS)]
    return Pure(
        routes=size,
        endpoints=size * ENDPOINTS,
        build_ms=build_ms,
        whole_bytes=len(whole),
        encode_ms=encode_ms,
        decode_ms=decode_ms,
        memory_mib=memory,
        endpoint=_median(endpoint),
        route=_median(route),
    )


class _Gateway:
    """The side of a gateway's parent."""

    def __init__(self, has: Snapshot) -> None:
        self.has = has

    def take(self, answer: bytes) -> None:
        """Take an answer, as far as it can be told without workers."""
        after = apply_delta(self.has, SnapshotDelta.model_validate_json(answer))
        assert not check_change(self.has, after)
        self.has = after


def _change(router: _Router, gateway: _Gateway, edit: Callable[[], None]) -> Change:
    edit()
    base = gateway.has.version

    def answer() -> bytes:
        newest = router.compose()
        return _encode(build_delta(base, router.history.since(base), newest, newest.version))

    router_ms, sent = _timed(answer)
    gateway_ms, _ = _timed(lambda: gateway.take(sent))
    return Change(router_ms=router_ms, sent_bytes=len(sent), gateway_ms=gateway_ms)


def _move_endpoint(router: _Router, turn: int) -> None:
    router.pools["s7"] = pool([*_endpoints(7, 8000)[1:], *_endpoints(7, 9000 + turn)[:1]])


def _redirect_route(router: _Router, turn: int) -> None:
    router.routes["r7"] = _route(7, f"c{8 + turn}")


def _route(number: int, cluster: str) -> Route:
    match = Match(host=f"h{number % 100}.example", path_prefix=f"/p{number}")
    return Route(name=f"r{number}", match=match, to=(WeightedCluster(cluster=cluster),))


def _endpoints(number: int, port: int) -> list[Endpoint]:
    address = f"10.{number % 200}.{number // 200}"
    return [Endpoint(id=f"s{number}-{one}", address=f"{address}.{one}", port=port) for one in range(ENDPOINTS)]


def _encode(delta: SnapshotDelta) -> bytes:
    return delta.model_dump_json(exclude_defaults=True).encode()


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return (time.process_time() - began) * 1000, result


def _median(found: list[Change]) -> Change:
    return sorted(found, key=lambda change: change.router_ms)[len(found) // 2]


def _held_mib() -> float:
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

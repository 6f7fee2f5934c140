"""Snapshots by themselves: built from nothing, and changed by one endpoint or one route, at both ends of the wire."""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from toska_common.clients.consul_records import Check, Node, ServiceEntry, ServiceInstance
from toska_common.clock import SystemClock
from toska_common.contracts.discovery import Health
from toska_common.contracts.routing import Cluster, Match, Route, Snapshot, SnapshotDelta, SnapshotPoll, WeightedCluster
from toska_common.routing.delta import apply_delta
from toska_gateway.routing import check_change
from toska_router.composer import Composer
from toska_router.documents import Change, build_document
from toska_router.instances import Instances
from toska_router.publisher import Publisher
from toska_router.sources import Sources

from benchmarks.figures import Record

ENDPOINTS = 10
"""Of each cluster."""
_REPEATS = 5
_NODE = Node("node", "10.0.0.1")
T = TypeVar("T")
_Run = Callable[[Coroutine[Any, Any, bytes]], bytes]


class Cost(Record):
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
    endpoint: Cost
    route: Cost


class _Router:
    """The router's side, from what operators and the registry say to the bytes of an answer."""

    def __init__(self, size: int) -> None:
        self.instances = Instances(grace_s=0.0)
        for number in range(size):
            self.register(number, _endpoints(number, 8000))
        clusters = {f"c{number}": Cluster(service=f"s{number}") for number in range(size)}
        routes = {f"r{number}": _route(number, f"c{number}") for number in range(size)}
        self.sources = Sources(own=build_document({"route": routes, "cluster": clusters, "policy": {}}))
        self.publisher = Publisher(SystemClock())
        self.composer = Composer(self.instances, self.publisher, Sources())

    def open(self) -> None:
        """Compile everything, and publish it."""
        self.composer.set_sources(self.sources)
        self.composer.open()

    def register(self, number: int, entries: Sequence[ServiceEntry]) -> None:
        """Have a service these instances."""
        self.instances.replace(f"s{number}", entries, 0.0)

    def change(self, *changes: Change) -> None:
        """Change resources of the API, checked as ever."""
        self.sources = self.sources.with_changes(changes)
        self.composer.set_sources(self.sources)

    async def answer(self, base: str) -> bytes:
        """What a gateway is answered that has this version."""
        answer = await self.publisher.answer(SnapshotPoll(gateway="", version=base), timedelta(0))
        assert answer is not None
        return answer


def measure(size: int) -> Pure:
    """Measure a table of `size` routes; medians of a few repeats."""
    with asyncio.Runner() as runner:
        return _measure(size, runner.run)


def _measure(size: int, run: _Run) -> Pure:
    before_mib = _held_mib()
    router = _Router(size)
    build_ms, _ = _timed(router.open)
    memory = _held_mib() - before_mib
    encode_ms, whole = _timed(lambda: run(router.answer("")))
    decode_ms, has = _timed(lambda: apply_delta(None, SnapshotDelta.model_validate_json(whole)))
    gateway = _Gateway(has)

    def change(edit: Callable[[int], None]) -> Cost:
        return _median([_change(router, gateway, lambda turn=turn: edit(turn), run) for turn in range(_REPEATS)])

    return Pure(
        routes=size,
        endpoints=size * ENDPOINTS,
        build_ms=build_ms,
        whole_bytes=len(whole),
        encode_ms=encode_ms,
        decode_ms=decode_ms,
        memory_mib=memory,
        endpoint=change(lambda turn: _move_endpoint(router, turn)),
        route=change(lambda turn: _redirect_route(router, turn)),
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


def _change(router: _Router, gateway: _Gateway, edit: Callable[[], None], run: _Run) -> Cost:
    base = gateway.has.version

    def answer() -> bytes:
        edit()
        router.composer.compose()
        return run(router.answer(base))

    router_ms, sent = _timed(answer)
    gateway_ms, _ = _timed(lambda: gateway.take(sent))
    return Cost(router_ms=router_ms, sent_bytes=len(sent), gateway_ms=gateway_ms)


def _move_endpoint(router: _Router, turn: int) -> None:
    router.register(7, [*_endpoints(7, 8000)[1:], *_endpoints(7, 9000 + turn)[:1]])


def _redirect_route(router: _Router, turn: int) -> None:
    router.change(Change("route", "r7", _route(7, f"c{8 + turn}")))


def _route(number: int, cluster: str) -> Route:
    match = Match(host=f"h{number % 100}.example", path_prefix=f"/p{number}")
    return Route(name=f"r{number}", match=match, to=(WeightedCluster(cluster=cluster),))


def _endpoints(number: int, port: int) -> list[ServiceEntry]:
    address = f"10.{number % 200}.{number // 200}"
    return [
        ServiceEntry(
            _NODE,
            ServiceInstance(id=f"s{number}-{one}", service=f"s{number}", address=f"{address}.{one}", port=port),
            (Check("up", Health.PASSING),),
        )
        for one in range(ENDPOINTS)
    ]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return (time.process_time() - began) * 1000, result


def _median(found: list[Cost]) -> Cost:
    return sorted(found, key=lambda change: change.router_ms)[len(found) // 2]


def _held_mib() -> float:
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

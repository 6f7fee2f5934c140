"""Data planes for tests: with real workers behind a real supervisor, or the worker's inside in the test's own loop."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toska_common.contracts.routing import Cluster, Snapshot, WeightedCluster
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.targets import TargetRules
from toska_gateway.listeners import parse_listener
from toska_gateway.supervisor import Supervisor
from toska_gateway.wire import Known, messages, owned_by_the_mesh
from toska_gateway.worker.downstream import Downstream
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging

from toska_tests.waiting import wait_until

_HERE = Path()
NOTHING: Mapping[str, Any] = {}


def cluster(*ports: int, **settings: Any) -> dict[str, Any]:
    """A cluster of endpoints on the loopback address."""
    return {"endpoints": [{"address": "127.0.0.1", "port": port} for port in ports], **settings}


def route(name: str, prefix: str = "/", to: Any = "app", **more: Any) -> dict[str, Any]:
    """A route by prefix."""
    return {"name": name, "match": {"path_prefix": prefix}, "to": to, **more}


def single(*ports: int, policies: Mapping[str, Any] = NOTHING, limits: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """A document in which everything goes to one cluster, `app`."""
    return {
        "server": {"limits": dict(limits)},
        "clusters": {"app": cluster(*ports)},
        "routes": [route("all", policies=dict(policies))],
    }


def snapshot_of(document: Mapping[str, Any]) -> Snapshot:
    """The snapshot that a router would make of a document."""
    # JSON is YAML 1.2, so this is read as an operator's file is.
    return build_snapshot(build_table(load_document(json.dumps(document), source="test")))


def with_mesh_cluster(document: Mapping[str, Any], name: str, port: int, *, route: str) -> Snapshot:
    """A document's snapshot with a cluster that no document may name, to which one of its routes leads instead."""
    table = snapshot_of(document).table
    pool = snapshot_of({"clusters": {"x": cluster(port)}, "routes": []}).endpoints["x"]
    routes = tuple(
        item.model_copy(update={"to": (WeightedCluster(cluster=name),)}) if item.name == route else item
        for item in table.routes
    )
    clusters = {**table.clusters, name: Cluster(endpoints=pool.endpoints)}
    return build_snapshot(table.model_copy(update={"clusters": clusters, "routes": routes}))


class Gateway:
    """A running supervisor with its workers."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.supervisor.address

    def port(self, listener: int) -> int:
        """Where one of several listeners is, in the order in which they were given."""
        return int(self.supervisor.urls[listener].rpartition(":")[2])

    @property
    def name(self) -> bytes:
        """Its own name in Via."""
        return self.supervisor.pseudonym.encode()

    async def serve(self, document: Mapping[str, Any]) -> None:
        """Put a routing document in force."""
        await self.supervisor.apply(snapshot_of(document))

    async def metrics(self) -> dict[str, float]:
        """Every series, under its name and labels as they stand in the exposition."""
        found: dict[str, float] = {}
        for line in (await self.supervisor.metrics()).splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                found[series] = float(value)
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        total = 0.0
        for series, value in (await self.metrics()).items():
            match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})?", series)
            assert match, series
            if match[1] == f"toska_gateway_{name}" and wanted <= set((match[2] or "").split(",")):
                total += value
        return total

    async def active(self) -> float:
        """Requests in flight towards endpoints."""
        return await self.metric("endpoint_active_requests")

    async def until_quiet(self, within: float = 8.0) -> None:
        """Wait until no request is in flight and no client is connected."""

        async def quiet() -> bool:
            return await self.active() == 0 and await self.metric("connections") == 0

        await wait_until(quiet, within=within, what="no request in flight, no client connected")

    def pids(self) -> list[int]:
        """The processes of its workers."""
        return [worker.pid for worker in self.supervisor.workers()]


@contextlib.asynccontextmanager
async def running_gateway(
    document: Mapping[str, Any] = NOTHING,
    *,
    workers: int = 1,
    host: str = "127.0.0.1",
    management: Iterable[tuple[str, int]] = (),
    listen: Iterable[str] = (),
    cache_url: str = "memory://",
    home: Path | None = None,
    filters: Path = _HERE,
    zone: str = "",
) -> AsyncGenerator[Gateway]:
    """A gateway of real worker processes."""
    listeners = [parse_listener(text) for text in listen]
    supervisor = Supervisor(
        host,
        0,
        workers,
        management,
        listeners=listeners,
        cache_url=cache_url,
        home=home,
        filters_folder=filters,
        zone=zone,
    )
    async with supervisor.run():
        gateway = Gateway(supervisor)
        await gateway.serve(document)
        yield gateway


def load(staging: Staging, snapshot: Snapshot, known: Known | None = None) -> list[str]:
    """Bring a worker's staging to a snapshot, as its parent's messages do; returns the problems."""
    owned = owned_by_the_mesh(snapshot.table.clusters)
    for message in messages(known or Known(), snapshot, owned):
        staging.take(message)
    problems = staging.commit()
    return load(staging, snapshot, replace(known, crowded=True)) if staging.crowded and known else problems


@contextlib.asynccontextmanager
async def plane_here(
    document: Mapping[str, Any], *, zone: str = "", ahead_s: float = 0.0
) -> AsyncGenerator[tuple[Plane, tuple[str, int]]]:
    """A worker's data plane in the test's own loop, where its inside can be looked at; with its address.

    `ahead_s` is how far the clock on the wall is put back once the document has been read.
    """
    loop = asyncio.get_running_loop()
    plane = Plane(loop, TargetRules())
    plane.zone = zone
    plane.wall += ahead_s
    assert load(Staging(plane), snapshot_of(document)) == []
    server = await loop.create_server(lambda: Downstream(plane), "127.0.0.1", 0)
    plane.start()
    try:
        yield plane, server.sockets[0].getsockname()
    finally:
        plane.stop()
        server.close()
        for downstream in list(plane.downstreams):
            downstream.abort()
        for one in plane.clusters.values():
            plane.close_idle(list(one.endpoints.values()))
        await wait_until(lambda: not plane.downstreams and not any(c.connections for c in plane.clusters.values()))


def idle_plane() -> Plane:
    """A plane whose loop does not run: what policies are compiled with where only their rules are looked at."""
    loop = asyncio.new_event_loop()
    try:
        return Plane(loop, TargetRules())
    finally:
        loop.close()

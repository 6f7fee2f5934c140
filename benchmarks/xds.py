"""An xDS push to many simulated clients: what a change takes to reach all of them, and what the server pays for it.

The server is a process of its own on the measured core; the clients share this one, each with a connection of its own.
Times are from the moment at which the server is told of other resources until a client has the response, so what this
process needs to read a hundred responses is in them.
"""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc.aio
import psutil
from rich.console import Console
from toska_common.envoy_api import message_class
from toska_router.xds import EVERYBODY, Resource, ResourceSet, XdsServer, build_resource_set, types
from toska_router.xds.resources import encode_resource

from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.report import Figures, Outcome, progress_bar, show

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_ENDPOINTS_EACH = 10
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int
    clients: int
    clusters: int


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure both variants of the protocol."""
    found: dict[str, _Found] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("xds", total=2)
        for name, incremental in (("incremental", True), ("state of the world", False)):
            found[name] = _measure(options, cores, incremental=incremental)
            progress.advance(bar)
    table = _table(found, options)
    show(console, table)
    figures: dict[str, object] = {name: one.figures() for name, one in found.items()}
    return Outcome([table], asdict(options), figures)


class _Found:
    """What one variant took."""

    def __init__(self) -> None:
        self.first_s = 0.0
        self.first_mib = 0.0
        self.median_s: list[float] = []
        self.last_s: list[float] = []
        self.cpu_s: list[float] = []
        self.bytes_each = 0

    def figures(self) -> dict[str, object]:
        return {
            "first_s": self.first_s,
            "first_mib": self.first_mib,
            "median_s": Spread.of(self.median_s).model_dump(),
            "last_s": Spread.of(self.last_s).model_dump(),
            "cpu_s": Spread.of(self.cpu_s).model_dump(),
            "bytes_each": self.bytes_each,
        }


def _measure(options: Options, cores: Cores, *, incremental: bool) -> _Found:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs, options.clusters, cores.measured), daemon=True)
    server.start()
    try:
        port: int = ours.recv()
        return asyncio.run(_follow(options, port, ours, psutil.Process(server.pid), incremental=incremental))
    finally:
        server.kill()
        server.join(timeout=10)


def _serve(pipe: Connection, clusters: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    asyncio.run(_serve_until_told(pipe, clusters))


async def _serve_until_told(pipe: Connection, clusters: int) -> None:
    server = XdsServer()
    resources = build_resource_set(_messages(clusters))
    server.set_resource_set(EVERYBODY, resources)
    async with server.listening("127.0.0.1", 0) as port:
        pipe.send(port)
        change = 0
        while await asyncio.to_thread(pipe.recv):
            change += 1
            began = time.monotonic()
            resources = _changed(resources, change)
            server.set_resource_set(EVERYBODY, resources)
            pipe.send(began)


def _messages(clusters: int) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {types.CLUSTER: {}, types.ENDPOINTS: {}}
    for number in range(clusters):
        name = f"service-{number}"
        cluster = message_class("envoy.config.cluster.v3.Cluster")(name=name, type=3)
        cluster.connect_timeout.seconds = 1
        cluster.eds_cluster_config.eds_config.ads.SetInParent()
        made[types.CLUSTER][name] = cluster
        made[types.ENDPOINTS][name] = _endpoints(name, 0)
    return made


def _endpoints(name: str, change: int) -> Any:
    made = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")(cluster_name=name)
    locality = made.endpoints.add()
    for number in range(_ENDPOINTS_EACH):
        member = locality.lb_endpoints.add()
        member.endpoint.address.socket_address.address = f"10.0.{change % 250}.{number}"
        member.endpoint.address.socket_address.port_value = 8000
    return made


def _changed(resources: ResourceSet, change: int) -> ResourceSet:
    """One endpoint of one cluster is another one."""
    before = resources.of(types.ENDPOINTS)
    name = f"service-{change % len(before)}"
    one: Resource = encode_resource(types.ENDPOINTS, name, _endpoints(name, change), before.get(name))
    after = before.replaced_by([one if each.name == name else each for each in before])
    return ResourceSet({**resources.by_type, types.ENDPOINTS: after})


class _Client:
    """A stream that acknowledges whatever comes."""

    def __init__(self, call: Any, *, incremental: bool) -> None:
        kind = "Delta" if incremental else ""
        self._call = call
        self._incremental = incremental
        self._request = message_class(f"envoy.service.discovery.v3.{kind}DiscoveryRequest")
        self._response = message_class(f"envoy.service.discovery.v3.{kind}DiscoveryResponse")
        self._names: list[str] = []

    async def begin(self, names: Sequence[str]) -> None:
        """Ask for all clusters and their endpoints, and take them."""
        self._names = list(names)
        await self._say(type_url=types.CLUSTER)
        await self._accept(self._response.FromString(await self._call.read()))
        if self._incremental:
            await self._say(type_url=types.ENDPOINTS, resource_names_subscribe=self._names)
        else:
            await self._say(type_url=types.ENDPOINTS, resource_names=self._names)
        heard = 0
        while heard < len(self._names):
            response = self._response.FromString(await self._call.read())
            heard += len(response.resources)
            await self._accept(response)

    async def change(self) -> tuple[float, int]:
        """Wait for one response: when it came, and its size."""
        data: bytes = await self._call.read()
        at = time.monotonic()
        await self._accept(self._response.FromString(data))
        return at, len(data)

    async def _accept(self, response: Any) -> None:
        fields: dict[str, Any] = {}
        if not self._incremental:
            fields["version_info"] = response.version_info
            if response.type_url == types.ENDPOINTS:
                fields["resource_names"] = self._names
        await self._say(type_url=response.type_url, response_nonce=response.nonce, **fields)

    async def _say(self, **fields: Any) -> None:
        await self._call.write(self._request(**fields).SerializeToString())


async def _follow(
    options: Options, port: int, pipe: Connection, server: psutil.Process, *, incremental: bool
) -> _Found:
    found = _Found()
    names = [f"service-{number}" for number in range(options.clusters)]
    method = f"{_ADS}{'Delta' if incremental else 'Stream'}AggregatedResources"
    made: Any = grpc.aio
    async with AsyncExitStack() as stack, asyncio.timeout(_WITHIN_S * 5):
        clients: list[_Client] = []
        weight = server.memory_full_info().pss
        began = time.monotonic()
        for _ in range(options.clients):
            limits = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
            channel = await stack.enter_async_context(made.insecure_channel(f"127.0.0.1:{port}", options=limits))
            clients.append(_Client(channel.stream_stream(method)(), incremental=incremental))
        await asyncio.gather(*(client.begin(names) for client in clients))
        found.first_s = time.monotonic() - began
        found.first_mib = (server.memory_full_info().pss - weight) / 2**20
        for _ in range(options.rounds):
            waiting = asyncio.gather(*(client.change() for client in clients))
            await asyncio.sleep(0.1)
            busy = sum(server.cpu_times()[:2])
            pipe.send(True)
            arrived = await waiting
            told: float = await asyncio.to_thread(pipe.recv)
            times = sorted(at - told for at, _ in arrived)
            await asyncio.sleep(0.2)  # its acknowledgements are part of what the server pays
            found.cpu_s.append(sum(server.cpu_times()[:2]) - busy)
            found.median_s.append(times[len(times) // 2])
            found.last_s.append(times[-1])
            found.bytes_each = arrived[0][1]
        pipe.send(False)
    return found


def _table(found: dict[str, _Found], options: Options) -> Figures:
    def of(values: Sequence[float]) -> str:
        return f"{Spread.of(values).median * 1e3:.0f}"

    rows = [
        ("first state to all of them, s", *(f"{one.first_s:.1f}" for one in found.values())),
        ("what that adds to the server, MiB", *(f"{one.first_mib:.0f}" for one in found.values())),
        ("one endpoint changes: half have it after, ms", *(of(one.median_s) for one in found.values())),
        ("the last has it after, ms", *(of(one.last_s) for one in found.values())),
        ("CPU of the server for that, ms", *(of(one.cpu_s) for one in found.values())),
        ("bytes to each", *(f"{one.bytes_each:,}" for one in found.values())),
    ]
    title = f"xDS push to {options.clients} simulated clients, {options.clusters:,} clusters"
    return Figures(title, ("", *found), rows)

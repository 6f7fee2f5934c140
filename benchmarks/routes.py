"""The routing table by itself: a look-up by the number of routes, and what compiling a table takes and weighs."""

import asyncio
import gc
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from toska_common.contracts.routing import Cluster, Match, Route, RoutingDocument, Server, WeightedCluster
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.targets import TargetRules
from toska_gateway.wire import Known, messages
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import RequestHead, read_request
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging
from toska_gateway.worker.table import RoutingTable

from benchmarks import BenchError
from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.report import Figures, Outcome, progress_bar, show

SIZES = (10, 500, 10_000)
_LOOK_UPS = 4_000
_FIELDS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Accept: text/html,application/xhtml+xml",
    "Accept-Language: en-GB,en;q=0.9", "Accept-Encoding: gzip, deflate, br", "Cookie: sid=3f9a; theme=dark",
    "Referer: https://shop.example/", "DNT: 1", "Sec-Fetch-Mode: navigate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Routes of one kind, and requests for them, by number."""

    match: Callable[[int], dict[str, Any]]
    request: Callable[[int], tuple[str, str, tuple[str, ...]]]
    """Target, host and fields."""


def _plain(target: Callable[[int], str]) -> Callable[[int], tuple[str, str, tuple[str, ...]]]:
    return lambda number: (target(number), "shop.example", _FIELDS)


KINDS: dict[str, Kind] = {
    "exact path": Kind(lambda n: {"path": f"/s{n}/orders"}, _plain(lambda n: f"/s{n}/orders")),
    "prefix": Kind(lambda n: {"path_prefix": f"/s{n}/orders"}, _plain(lambda n: f"/s{n}/orders/1/lines")),
    "template": Kind(
        lambda n: {"path_template": f"/api/{{tenant}}/s{n}/{{id}}"}, _plain(lambda n: f"/api/acme/s{n}/17")
    ),
    "expression": Kind(lambda n: {"path_regex": rf"/s{n}-\d+/.*"}, _plain(lambda n: f"/s{n}-17/lines")),
    "host": Kind(
        lambda n: {"host": f"s{n}.shop.example", "path_prefix": "/"},
        lambda n: ("/orders/1", f"s{n}.shop.example", _FIELDS),
    ),
    "header of one path": Kind(
        lambda n: {"path_prefix": "/shop", "headers": {"x-tenant": f"t{n}", "x-kind": "a"}},
        lambda n: ("/shop/1", "shop.example", (*_FIELDS, f"X-Tenant: t{n}", "X-Kind: a")),
    ),
    "cookie of one path": Kind(
        lambda n: {"path_prefix": "/shop", "cookies": {"tenant": f"t{n}"}},
        lambda n: ("/shop/1", "shop.example", (*_FIELDS, f"Cookie: tenant=t{n}")),
    ),
    "client of one path": Kind(
        lambda n: {"path_prefix": "/shop", "client_ip": [f"10.{n >> 8 & 255}.{n & 255}.0/24"]},
        lambda n: ("/shop/1", "shop.example", (*_FIELDS, f"X-Forwarded-For: 10.{n >> 8 & 255}.{n & 255}.7")),
    ),
}
"""Each kind by itself, and `mixed`: a table with equally many of all of them."""


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure look-ups in tables of every kind and size."""
    os.sched_setaffinity(0, {cores.measured})
    names = (*KINDS, "mixed")
    found: dict[tuple[str, int], list[float]] = {}
    compiled: dict[int, list[float]] = {}
    weighs: dict[int, float] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("routes", total=len(SIZES) * len(names))
        for size in SIZES:
            for name in names:
                table = _Table(name, size)
                found[name, size] = [table.per_look_up() for _ in range(options.rounds)]
                if name == "mixed":
                    compiled[size] = [table.compile_s() for _ in range(options.rounds)]
                    weighs[size] = table.weight()
                progress.advance(bar)
    tables = [_look_ups(names, found), _making(compiled, weighs)]
    for table in tables:
        show(console, table)
    figures: dict[str, object] = {
        f"look_up_s_{name.replace(' ', '_')}_{size}": Spread.of(values).model_dump()
        for (name, size), values in found.items()
    }
    figures |= {f"compile_s_{size}": Spread.of(values).model_dump() for size, values in compiled.items()}
    figures |= {f"bytes_{size}": weight for size, weight in weighs.items()}
    return Outcome(tables, asdict(options), figures)


class _Table:
    """A table of routes of a kind, as a worker has it, and requests for them."""

    def __init__(self, name: str, size: int) -> None:
        kinds = list(KINDS.values()) if name == "mixed" else [KINDS[name]]
        to = (WeightedCluster(cluster="app"),)
        routes = [
            Route(name=f"r{n}", match=Match.model_validate(kinds[n % len(kinds)].match(n)), to=to) for n in range(size)
        ]
        cluster = Cluster.model_validate({"endpoints": [{"address": "127.0.0.1", "port": 1}]})
        server = Server(trusted_proxies=("127.0.0.1/32",))
        document = RoutingDocument(server=server, clusters={"app": cluster}, routes=tuple(routes))
        sent = list(messages(Known(), build_snapshot(build_table(document)), frozenset()))
        self._routes = [route for message in sent for route in message.get("routes", ())]
        loop = asyncio.new_event_loop()
        self._plane = Plane(loop, TargetRules())
        loop.close()
        staging = Staging(self._plane)
        for message in sent:
            staging.take(message)
        if problems := staging.commit():
            raise BenchError(f"the table does not compile: {problems[0]}")
        self._table = self._plane.table
        chance = random.Random(size)
        numbers = [chance.randrange(size) for _ in range(min(size, 256))]
        self._heads = [_head(*kinds[n % len(kinds)].request(n)) for n in numbers]
        self._from = Forwarding(self._plane, "127.0.0.1", b"http")

    def _compile(self) -> RoutingTable:
        table = RoutingTable()
        for route in self._routes:
            table.add(route, self._plane)
        return table

    def compile_s(self) -> float:
        """Seconds of CPU that a worker spends on the whole table; in slices, beside its requests."""
        began = time.process_time()
        self._compile()
        return time.process_time() - began

    def weight(self) -> float:
        """Bytes that the table takes in a worker."""
        gc.collect()
        tracemalloc.start()
        try:
            table = self._compile()
            gc.collect()
            weight = tracemalloc.get_traced_memory()[0]
            del table
        finally:
            tracemalloc.stop()
        return float(weight)

    def per_look_up(self) -> float:
        """Seconds of CPU a look-up, over requests for routes all over the table."""
        find, heads, connection = self._table.find, self._heads, self._from
        if any(find(head, connection) is None for head in heads):
            raise BenchError("a request has no route")
        rounds = _LOOK_UPS // len(heads)
        began = time.process_time()
        for _ in range(rounds):
            for head in heads:
                find(head, connection)
        return (time.process_time() - began) / (rounds * len(heads))


def _head(target: str, host: str, fields: Sequence[str]) -> RequestHead:
    lines = (f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", "")
    return read_request("\r\n".join(lines).encode(), 100, 8192)


def _look_ups(names: Sequence[str], found: dict[tuple[str, int], list[float]]) -> Figures:
    rows = [(name, *(f"{Spread.of(found[name, size]).median * 1e6:.2f}" for size in SIZES)) for name in names]
    return Figures("µs of CPU a look-up, by number of routes", ("routes by", *(f"{n:,}" for n in SIZES)), rows)


def _making(compiled: dict[int, list[float]], weighs: dict[int, float]) -> Figures:
    rows = [
        ("ms of CPU to compile it", *(f"{Spread.of(compiled[size]).median * 1e3:.1f}" for size in SIZES)),
        ("MB that it takes", *(f"{weighs[size] / 1e6:.1f}" for size in SIZES)),
    ]
    return Figures("A mixed table, in each worker", ("", *(f"{n:,}" for n in SIZES)), rows)

"""Routing in Envoy's words: what a table takes to be judged, translated and encoded, and what a change of it does."""

import os
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from rich.console import Console
from toska_common.contracts.routing import Cluster, Match, Policies, Route, RouteTable, WeightedCluster
from toska_common.envoy import Judged, ListenerOptions, RouteEncoder, RouteParts, find_refusals, translate
from toska_common.envoy import Options as Listening
from toska_common.envoy.encoding import encode
from toska_common.envoy.resources import ROUTES

from benchmarks import BenchError
from benchmarks.figures import Spread
from benchmarks.machine import Cores
from benchmarks.report import Figures, Outcome, progress_bar, show

SIZES = (1_000, 10_000)
_HOSTS = 20
_OPTIONS = Listening(listeners=(ListenerOptions("web", "127.0.0.1", 8080),))


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    rounds: int


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure tables of every size."""
    os.sched_setaffinity(0, {cores.measured})
    whole: dict[int, list[float]] = {}
    change: dict[int, list[float]] = {}
    size_of: dict[int, int] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("translation", total=len(SIZES) * options.rounds)
        for size in SIZES:
            before, after = _tables(size)
            for _ in range(options.rounds):
                told = _Told()
                whole.setdefault(size, []).append(told.take(before))
                size_of[size] = told.size
                change.setdefault(size, []).append(told.take(after))
                progress.advance(bar)
    table = _table(whole, change, size_of)
    show(console, table)
    figures: dict[str, object] = {f"whole_s_{size}": Spread.of(values).model_dump() for size, values in whole.items()}
    figures |= {f"change_s_{size}": Spread.of(values).model_dump() for size, values in change.items()}
    return Outcome([table], asdict(options), figures)


class _Told:
    """What one Envoy has been told."""

    def __init__(self) -> None:
        self._judged = Judged()
        self._parts = RouteParts()
        self._encoder = RouteEncoder()
        self.size = 0

    def take(self, table: RouteTable) -> float:
        """Seconds of CPU until a table is bytes."""
        began = time.process_time()
        if problems := find_refusals(table, self._judged):
            raise BenchError(f"Envoy cannot serve the table: {problems[0].reason}")
        made = translate(table, {}, _OPTIONS, self._parts)
        encoded = [
            self._encoder.encode(one) if url == ROUTES else encode(url, one)
            for url, found in made.by_type().items()
            for one in found.values()
        ]
        took = time.process_time() - began
        self.size = sum(map(len, encoded))
        return took


def _tables(size: int) -> tuple[RouteTable, RouteTable]:
    """A table of which a third has no host, and the same with another timeout on one route."""
    clusters = {
        f"c{number}": Cluster.model_validate({"endpoints": [{"address": "127.0.0.1", "port": 9000 + number % 500}]})
        for number in range(size // 10)
    }
    routes = [_route(number, len(clusters)) for number in range(size)]
    slower = routes[5].policies.model_copy(update={"timeout": timedelta(seconds=7)})
    changed = [*routes[:5], routes[5].model_copy(update={"policies": slower}), *routes[6:]]
    return RouteTable(clusters=clusters, routes=tuple(routes)), RouteTable(clusters=clusters, routes=tuple(changed))


def _route(number: int, clusters: int) -> Route:
    host = {"host": f"h{number % _HOSTS}.example"} if number % 3 else {}
    return Route(
        name=f"r{number}",
        match=Match.model_validate({"path_prefix": f"/s{number}", **host}),
        to=(WeightedCluster(cluster=f"c{number % clusters}"),),
        strip_prefix=number % 2 == 0,
        policies=Policies(timeout=timedelta(seconds=5)),
    )


def _table(whole: dict[int, list[float]], change: dict[int, list[float]], size_of: dict[int, int]) -> Figures:
    rows: list[tuple[str, ...]] = [
        ("s of CPU for all of it", *(f"{Spread.of(whole[size]).median:.2f}" for size in SIZES)),
        ("s of CPU for a change of one route", *(f"{Spread.of(change[size]).median:.3f}" for size in SIZES)),
        ("MB that Envoy is told", *(f"{size_of[size] / 1e6:.1f}" for size in SIZES)),
    ]
    return Figures(f"Routing in Envoy's words, for {_HOSTS} hosts", ("routes", *(f"{n:,}" for n in SIZES)), rows)

"""`python -m benchmarks snapshots`: both parts, as tables."""

import asyncio
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.machine import Cores
from benchmarks.meter import TOLERATED, Meter
from benchmarks.report import Figures, Outcome, progress_bar, show
from benchmarks.snapshots import live, pure


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run."""

    routes: tuple[int, ...]
    changes: int


def run(console: Console, options: Options, cores: Cores) -> Outcome:
    """Measure every size, by itself and in a mesh.

    Raises:
        BenchError: A part of the mesh does not come up, or a change is not served.
    """
    by_itself: list[pure.Pure] = []
    in_mesh: list[live.Live] = []
    meter = Meter(None, cores.measured)
    with (
        tempfile.TemporaryDirectory(prefix="toska-bench-") as place,
        progress_bar(console) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        bar = progress.add_task("snapshots", total=2 * len(options.routes))
        for size in options.routes:
            os.sched_setaffinity(0, {cores.measured})
            by_itself.append(pure.measure(size))
            os.sched_setaffinity(0, cores.load)
            progress.advance(bar)
            in_mesh.append(runner.run(live.measure(Path(place) / str(size), size, options.changes, cores)))
            progress.advance(bar)
    others = meter.stop().others_share  # everything on the core counts as theirs: it is only told, and not judged
    tables = [_whole_table(by_itself), _change_table(by_itself), _live_table(in_mesh, options, others)]
    for table in tables:
        show(console, table)
    figures: dict[str, object] = {
        "pure": [one.model_dump() for one in by_itself],
        "live": [one.model_dump() for one in in_mesh],
    }
    return Outcome(tables, asdict(options), figures, disturbed=os.getloadavg()[0] > 2 + TOLERATED)


def _whole_table(found: list[pure.Pure]) -> Figures:
    columns = ("routes", "endpoints", "build ms", "KiB", "encode ms", "take ms", "MiB")
    rows = [
        (
            f"{one.routes:,}",
            f"{one.endpoints:,}",
            f"{one.build_ms:.0f}",
            f"{one.whole_bytes / 1024:,.0f}",
            f"{one.encode_ms:.1f}",
            f"{one.decode_ms:.0f}",
            f"{one.memory_mib:.0f}",
        )
        for one in found
    ]
    notes = ["Milliseconds of processor time; memory is what a router holds of it."]
    return Figures("A snapshot as a whole", columns, rows, emphasis="10,000", notes=notes)


def _change_table(found: list[pure.Pure]) -> Figures:
    columns = ("", "router ms", "bytes", "gateway ms")
    rows = [
        (
            f"{one.routes:,} routes, one {kind}",
            f"{change.router_ms:.1f}",
            f"{change.sent_bytes:,}",
            f"{change.gateway_ms:.1f}",
        )
        for one in found
        for kind, change in (("endpoint", one.endpoint), ("route", one.route))
    ]
    notes = [
        "Milliseconds of processor time, the gateway's in its parent: an endpoint moves, or a route leads elsewhere."
    ]
    return Figures("A change, and what it resends", columns, rows, emphasis="10,000", notes=notes)


def _live_table(found: list[live.Live], options: Options, busy: float) -> Figures:
    columns = ("routes", "answered p50", f"{live.POLLERS} pollers p50", "p99", "served p50", "p99")
    columns += ("router MiB", "gateway MiB")
    rows = [
        (
            f"{one.routes:,}",
            f"{one.answered_p50_ms:.1f}",
            f"{one.polled_p50_ms:.1f}",
            f"{one.polled_p99_ms:.1f}",
            f"{one.served_p50_ms:.1f}",
            f"{one.served_p99_ms:.1f}",
            f"{one.router_mib:.0f}",
            f"{one.gateway_mib:.0f}",
        )
        for one in found
    ]
    notes = [
        f"Milliseconds from sending a change of one route, {options.changes} times; everything on one core.",
        f"That core was busy for {busy:.0%} of the time with all of this.",
    ]
    return Figures("From a change to its effect", columns, rows, emphasis="10,000", notes=notes)

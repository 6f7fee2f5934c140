"""The table of `toska top`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toska_cli.rates import Latency, Rates, RouteRates, UpstreamRates

if TYPE_CHECKING:
    from rich.table import Table


def table_of(rates: Rates, view: str, *, limit: int, problem: str = "") -> "Table":
    """What happened in an interval, the busiest first; at most `limit` lines, unless that is 0."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = (
        f"{rates.workers} workers  {rates.connections} connections  {rates.accepted_per_s:.1f} new/s  "
        f"over {rates.seconds:.1f} s"
    )
    if problem:
        title += f"  [red]{escape(problem)}[/]"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, caption_justify="left")
    rows = _routes(table, rates.routes) if view == "route" else _upstreams(table, _chosen(rates, view), view)
    shown = rows[:limit] if limit else rows
    for row in shown:
        table.add_row(*(escape(cell) for cell in row[:-1]), f"[dim]{escape(row[-1])}[/]")
    hidden = len(rows) - len(shown)
    table.caption = (f"and {hidden} more\n" if hidden else "") + (
        "r routes  c clusters  e endpoints  q quit" if limit else ""
    )
    return table


def _chosen(rates: Rates, view: str) -> Sequence[UpstreamRates]:
    return rates.clusters if view == "cluster" else rates.endpoints


def _routes(table: "Table", routes: Sequence[RouteRates]) -> list[list[str]]:
    table.add_column("route", overflow="fold")
    for name in ("req/s", "5xx/s", "4xx/s", "p50 ms", "p90 ms", "p99 ms", "in/s", "out/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("own answers", overflow="ellipsis", no_wrap=True)
    busiest = sorted(routes, key=lambda one: (-one.requests_per_s, one.name))
    return [
        [
            one.name,
            _rate(one.requests_per_s),
            _rate(one.errors_per_s),
            _rate(one.refusals_per_s),
            *_percentiles(one.latency),
            _size(one.received_bytes_per_s),
            _size(one.sent_bytes_per_s),
            _reasons(one.errors),
        ]
        for one in busiest
    ]


def _upstreams(table: "Table", upstreams: Sequence[UpstreamRates], view: str) -> list[list[str]]:
    table.add_column(view, overflow="fold")
    for name in ("tries/s", "failed/s", "p50 ms", "p90 ms", "p99 ms", "active", "idle", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("circuit" if view == "cluster" else "state", no_wrap=True)
    table.add_column("failures", overflow="ellipsis", no_wrap=True)
    busiest = sorted(upstreams, key=lambda one: (-one.attempts_per_s, one.cluster, one.endpoint))
    return [
        [
            f"{one.cluster} {one.endpoint}" if one.endpoint else one.cluster,
            _rate(one.attempts_per_s),
            _rate(one.errors_per_s),
            *_percentiles(one.latency),
            str(one.active),
            str(one.idle),
            str(one.pending),
            one.state,
            _reasons(one.failures),
        ]
        for one in busiest
    ]


def _percentiles(latency: Latency) -> list[str]:
    return ["" if value is None else _rate(value) for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms)]


def _rate(value: float) -> str:
    if not value:
        return "0"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))

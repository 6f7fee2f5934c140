"""Responses of 1 MiB passed on as they come: throughput beside nginx with `proxy_buffering off`."""

from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks.figures import ratio
from benchmarks.machine import Cores
from benchmarks.profiles import MEBIBYTE
from benchmarks.proxies.comparison import Options, ProfileFigures, Row, compare
from benchmarks.proxies.nginx import NGINX
from benchmarks.proxies.stage import DIRECT
from benchmarks.report import Figures, disturbance_note

_COLUMNS = ("proxy", "MiB/s", "µs CPU/MiB", "MiB/s, of nginx's", "CPU, of nginx's", "core")


def measure(options: Options, *, cores: Cores, folder: Path, progress: Progress) -> ProfileFigures:
    """Measure every proxy, nginx without its buffering."""
    return compare(MEBIBYTE, options, routes=1, cores=cores, folder=folder, progress=progress, streaming=True)


def table(figures: ProfileFigures) -> Figures:
    rows = {row.name: row for row in figures.rows}
    cells = [_cells(row, rows.get(NGINX.name)) for row in figures.rows]
    return Figures(figures.title, _COLUMNS, cells, notes=[disturbance_note(figures.disturbance)])


def _cells(row: Row, nginx: Row | None) -> tuple[str, ...]:
    rate = f"{row.per_second.median:,.0f}"
    if row.name == DIRECT:
        return (row.name, rate, "", "", "", "")
    cpu = f"{row.cpu_us.median:,.0f} ±{row.cpu_us.noise:.0%}"
    of_nginx = ("", "")
    if nginx is not None:
        rates = ratio([each.per_second for each in row.samples], [each.per_second for each in nginx.samples])
        of_nginx = (f"{rates.median:.2f}", f"{row.cpu_of[nginx.name].median:.2f}")
    share = median(sample.own_share for sample in row.samples)
    return (f"{row.name} {row.version}", rate, cpu, *of_nginx, f"{share:.0%}")

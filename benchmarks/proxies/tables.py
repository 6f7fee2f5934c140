"""The comparison of proxies as people read it."""

from benchmarks.figures import Spread
from benchmarks.proxies.comparison import ProfileFigures, Row
from benchmarks.proxies.stage import DIRECT
from benchmarks.report import Figures, disturbance_note

_COLUMNS = ("proxy", "requests/s", "p50 ms", "p99 ms", "µs CPU/request", "of Envoy's", "of nginx's", "core")
_SATURATED = 0.9


def table(figures: ProfileFigures) -> Figures:
    notes = [disturbance_note(figures.disturbance)]
    idle = [row.name for row in figures.rows if row.name != DIRECT and row.busy < _SATURATED]
    if idle:
        notes.append(f"{', '.join(idle)}: core not full, so requests/s and latency are those of the load and upstream.")
    title = f"{figures.title}, {'one route' if figures.routes == 1 else f'{figures.routes} routes'}"
    return Figures(title, _COLUMNS, [_cells(row) for row in figures.rows], notes=notes)


def _cells(row: Row) -> tuple[str, ...]:
    measured = (f"{row.per_second.median:,.0f}", f"{row.p50_ms.median:.2f}", f"{row.p99_ms.median:.2f}")
    if row.name == DIRECT:
        return (row.name, *measured, "", "", "", "")
    return (
        f"{row.name} {row.version}",
        *measured,
        f"{row.cpu_us.median:.1f} ±{row.cpu_us.noise:.0%}",
        _times(row.cpu_of.get("envoy")),
        _times(row.cpu_of.get("nginx")),
        f"{row.own_share.median:.0%}",
    )


def _times(value: Spread | None) -> str:
    return f"{value.median:.2f}" if value else ""

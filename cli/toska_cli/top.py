"""`toska top`: a gateway's rates, errors and percentiles, as they are."""

import contextlib
import json
import sys
import time
from collections.abc import Generator
from select import select
from typing import TYPE_CHECKING, Final

from toska_common.contracts.gateway_stats import GatewayStats
from toska_common.errors import MeshError

from toska_cli.admin_api import AdminApi
from toska_cli.rates import Rates, rates_between
from toska_cli.top_table import table_of

if TYPE_CHECKING:
    from rich.console import Console

_KEYS: Final = {"r": "route", "c": "cluster", "e": "endpoint"}
_STATS: Final = "/api/v1/gateway/stats"


def run_top(gateway: AdminApi, view: str, interval_s: float, *, once: bool, as_json: bool) -> None:
    """Show what happens, interval by interval; until interrupted, or `q`.

    Args:
        gateway: Whom to ask.
        view: What a line is: route, cluster or endpoint.
        interval_s: Between two looks.
        once: End after the first interval.
        as_json: A JSON line for each, with all views.

    Raises:
        MeshError: The gateway refuses, or does not answer at the first look.
    """
    before = _look(gateway)
    if as_json:
        _print_lines(gateway, before, interval_s, once=once)
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if once or not sys.stdout.isatty():
        time.sleep(interval_s)
        console.print(table_of(rates_between(before, _look(gateway)), view, limit=0))
        return
    _watch(gateway, before, view, interval_s, console)


def _look(gateway: AdminApi) -> GatewayStats:
    return GatewayStats.model_validate(gateway.get(_STATS))


def _print_lines(gateway: AdminApi, before: GatewayStats, interval_s: float, *, once: bool) -> None:
    while True:
        time.sleep(interval_s)
        after = _look(gateway)
        sys.stdout.write(json.dumps(rates_between(before, after).as_json()) + "\n")
        sys.stdout.flush()
        if once:
            return
        before = after


def _watch(gateway: AdminApi, before: GatewayStats, view: str, interval_s: float, console: "Console") -> None:
    from rich.live import Live
    from rich.text import Text

    rates: Rates | None = None
    problem = ""
    with _keys_at_once(), Live(Text("looking …"), console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval_s
        while sys.stdout.isatty():  # a terminal may go without a signal that says so
            key = _key_within(due - time.monotonic())
            if key in ("q", "\x03"):
                return
            view = _KEYS.get(key, view)
            if time.monotonic() >= due:
                due = time.monotonic() + interval_s
                try:
                    after = _look(gateway)
                except MeshError as error:
                    problem = error.detail  # it may come back, and who watches wants to see that
                else:
                    rates, before, problem = rates_between(before, after), after, ""
            if rates is not None:
                limit = max(1, console.height - 8)
                live.update(table_of(rates, view, limit=limit, problem=problem), refresh=True)
            elif problem:
                live.update(Text(problem), refresh=True)


def _key_within(seconds: float) -> str:
    if not sys.stdin.isatty():
        time.sleep(max(0.0, seconds))
        return ""
    ready, _, _ = select([sys.stdin], [], [], max(0.0, seconds))
    return sys.stdin.read(1) if ready else ""


@contextlib.contextmanager
def _keys_at_once() -> Generator[None]:
    """Have keys come one by one, and not in lines."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

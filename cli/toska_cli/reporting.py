"""What `toska up` shows: progress and a table for people, one JSON line for programs."""

import json
import sys
import threading
from collections.abc import Sequence

from toska_cli.view import MeshView, PartView


class JsonReporter:
    """One line on standard output when the mesh is ready; anything else worth knowing goes to standard error."""

    def started(self, name: str) -> None:
        """Say nothing: a program waits for the line."""

    def crashed(self, name: str, error: Exception, restart_in_s: float) -> None:
        """Say that a service is being restarted."""
        _note(f"{name} crashed ({error}); starting it again in {restart_in_s:g} s")

    def ready(self, mesh: MeshView) -> None:
        """Print the line."""
        sys.stdout.write(json.dumps(mesh.as_json()) + "\n")
        sys.stdout.flush()

    def stopping(self) -> None:
        """Say that the signal was heard."""
        _note("stopping; again to stop at once")


class TableReporter(JsonReporter):
    """Progress while the mesh starts, then a table of it."""

    def __init__(self, *, open_browser: bool = False) -> None:
        self._open_browser = open_browser

    def started(self, name: str) -> None:
        """Name the part that is ready."""
        sys.stderr.write(f"  {name} is ready\n")

    def ready(self, mesh: MeshView) -> None:
        """Print the table, and what to try first."""
        import webbrowser

        print_parts(mesh.parts, title=f"Toska Mesh, ready in {mesh.ready_in_s:.1f} s")
        out = sys.stdout
        for command in mesh.try_it:
            out.write(f"\n  try    {command}\n")
        if mesh.docs is not None:
            out.write(f"  docs   {mesh.docs}\n")
        out.write(f"  state  {mesh.home}\n")
        out.write("\nCtrl-C stops everything.\n")
        out.flush()
        if self._open_browser and mesh.docs is not None:
            # A thread: some browsers' starters return only when the browser is closed.
            threading.Thread(target=webbrowser.open, args=(mesh.docs,), daemon=True).start()


def print_parts(parts: Sequence[PartView], *, title: str = "") -> None:
    """Print a table of services: name, state, port, URL."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("service")
    table.add_column("state")
    table.add_column("port", justify="right")
    table.add_column("url")
    table.add_column("")
    for part in parts:
        style = "green" if part.state in {"ready", "running"} else "yellow"
        table.add_row(part.name, f"[{style}]{part.state}[/]", str(part.port), part.url, f"[dim]{part.note}[/]")
    # A pipe has no width of its own; URLs must not be cut there.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)


def _note(line: str) -> None:
    sys.stderr.write(f"toska: {line}\n")
    sys.stderr.flush()

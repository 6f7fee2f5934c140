"""Where figures go: to the terminal, into `bench-results/` as JSON and Markdown, and into the pages that quote them."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.machine import Machine
from benchmarks.meter import TOLERATED
from benchmarks.parts import ROOT

RESULTS = ROOT / "bench-results"
_PAGE = ROOT / "docs" / "performance.md"
_IN_README = "proxies"


@dataclass(frozen=True, slots=True)
class Figures:
    """A table, the same on the terminal and in Markdown: the first column is a name, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    emphasis: str = "toska"
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a bench hands back: tables to read, settings and figures to keep, and whether they may be quoted.

    `headline` are the tables that the README quotes.
    """

    tables: Sequence[Figures]
    settings: dict[str, object]
    figures: dict[str, object]
    disturbed: bool = False
    headline: Sequence[Figures] = ()


def together(outcomes: Mapping[str, Outcome]) -> Outcome:
    """The outcomes of a bench's parts, by their names, as one."""
    return Outcome(
        [table for outcome in outcomes.values() for table in outcome.tables],
        {name: value for outcome in outcomes.values() for name, value in outcome.settings.items()},
        {part: outcome.figures for part, outcome in outcomes.items()},
        any(outcome.disturbed for outcome in outcomes.values()),
    )


class Report(Record):
    """What one bench found, with all that is needed to doubt it."""

    bench: str
    measured_at: str
    commit: str
    machine: dict[str, str | int | float]
    settings: dict[str, object]
    figures: dict[str, object]


def commit() -> str:
    """The commit that was measured, `+` if the tree has changes beside it, empty outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()


def progress_bar(console: Console) -> Progress:
    """A bar that goes away when the bench is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def disturbance_note(share: float) -> str:
    """What to say about the others on the measured core."""
    note = f"Other processes had {share:.1%} of the measured core meanwhile."
    if share > TOLERATED:
        note += " That is too much to quote rates and latencies: measure again on a quiet machine."
    return note


def show(console: Console, figures: Figures) -> None:
    table = Table(title=figures.title, title_justify="left", title_style="bold")
    for index, column in enumerate(figures.columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in figures.rows:
        table.add_row(*row, style="bold green" if row[0].startswith(figures.emphasis) else None)
    console.print(table)
    for note in figures.notes:
        console.print(note, style="dim", highlight=False)
    console.print()


def markdown(figures: Sequence[Figures], machine: Machine, command: str) -> str:
    """The tables as Markdown, below one line that says where they come from."""
    where = f"{machine.processor}, {machine.cores} cores, Linux {machine.kernel.split('-')[0]}, Python {machine.python}"
    parts = [f"Measured by `{command}` on {where}; medians of interleaved rounds."]
    parts.extend(_markdown_table(table) for table in figures)
    return "\n\n".join(parts) + "\n"


def save(report: Report, text: str) -> Path:
    """Write both forms into `bench-results/`; returns the Markdown file."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{report.bench}.json").write_text(report.model_dump_json(indent=2) + "\n")
    file = RESULTS / f"{report.bench}.md"
    file.write_text(text)
    return file


def quote(bench: str, text: str, headline: str) -> list[str]:
    """Put the tables where the repository's pages quote this bench, the headline into the README; returns their names.

    Raises:
        BenchError: A page does not have its two marks, once each and in order.
    """
    places = [(_PAGE, f"bench:{bench}", text)]
    if bench == _IN_README:
        places.append((ROOT / "README.md", "bench", headline))
    for page, mark, quoted in places:
        _replace_between(page, f"<!-- {mark}:start -->", f"<!-- {mark}:end -->", quoted)
    return [page.name for page, _, _ in places]


def is_quoted(bench: str) -> bool:
    """Whether the page has a place for its tables."""
    return f"<!-- bench:{bench}:start -->" in _PAGE.read_text()


def _replace_between(page: Path, start: str, end: str, text: str) -> None:
    before, opening, rest = page.read_text().partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise BenchError(f"{page.name} has no {start} … {end} to put the figures between")
    page.write_text(f"{before}{opening}\n{text}{closing}{after}")


def _markdown_table(figures: Figures) -> str:
    lines = [
        f"**{figures.title}**",
        "",
        _markdown_row(figures.columns),
        _markdown_row(["---", *("---:" for _ in figures.columns[1:])]),
    ]
    for row in figures.rows:
        bold = row[0].startswith(figures.emphasis)
        lines.append(_markdown_row([f"**{cell}**" if bold and cell else cell for cell in row]))
    for note in figures.notes:
        lines += ["", note]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

"""`python -m benchmarks`: choose a bench, run it, show and keep what it found."""

import argparse
import signal
import sys
from types import FrameType

from rich.console import Console
from toska_common.clock import now_utc

from benchmarks import BenchError
from benchmarks.machine import describe_machine, split_cores
from benchmarks.profiles import PROFILES
from benchmarks.proxies import bench as proxies_bench
from benchmarks.proxies.comparison import PROXIES, Options
from benchmarks.report import Report, commit, markdown, save, update_readme


def main() -> int:
    arguments = _parse()
    console = Console(width=None if sys.stdout.isatty() else 120)
    signal.signal(signal.SIGTERM, _leave)  # unwinds like Ctrl-C, so that everything started is ended
    try:
        _run(console, arguments)
    except BenchError as error:
        console.print(f"[bold red]bench failed:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a figure to quote")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--routes", type=int, default=1, help="size of every proxy's route table")
    parser.add_argument("--profiles", default="bare,browser", help=f"of {', '.join(PROFILES)}")
    parser.add_argument("--proxies", default=",".join(PROXIES), help="which of them to compare")
    parser.add_argument("--update-readme", action="store_true", help="put the tables into README.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    for option, known in (("profiles", PROFILES), ("proxies", PROXIES)):
        chosen = tuple(getattr(arguments, option).split(","))
        if unknown := set(chosen).difference(known):
            parser.error(f"--{option}: {', '.join(sorted(unknown))} is not one of {', '.join(known)}")
        setattr(arguments, option, chosen)
    return arguments


def _run(console: Console, arguments: argparse.Namespace) -> None:
    machine, cores = describe_machine(), split_cores()
    options = Options(arguments.proxies, arguments.rounds, arguments.seconds, arguments.connections, arguments.routes)
    tables, settings, figures = proxies_bench.run(console, options, arguments.profiles, cores)
    report = Report(
        bench="proxies",
        measured_at=now_utc().isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine.as_dict(),
        settings=settings,
        figures=figures,
    )
    text = markdown(tables, machine, "make bench")
    console.print(f"kept in {save(report, text)}", style="dim", highlight=False)
    if arguments.update_readme:
        update_readme(text)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

"""All benches, one after the other, each in a process of its own.

One that fails does not keep the others from running.
"""

import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from benchmarks import BenchError
from benchmarks.parts import ROOT
from benchmarks.report import is_quoted


def run_all(console: Console, benches: Sequence[str], *, quick: bool, quoted: bool) -> None:
    """Run them, and say how long each took.

    Args:
        console: Where to say it.
        benches: Their names.
        quick: For a look.
        quoted: Whether figures go into the pages, of those benches that a page quotes.

    Raises:
        BenchError: Some failed; the message names them.
    """
    failed: list[str] = []
    for bench in benches:
        console.rule(bench)
        options = ["--quick"] if quick else []
        if quoted and is_quoted(bench):
            options.append("--update-readme")
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "benchmarks", bench, *options], cwd=ROOT, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            failed.append(bench)
        console.print(f"{bench} took {time.monotonic() - began:.0f} s", style="dim", highlight=False)
    if failed:
        raise BenchError(f"{len(failed)} of {len(benches)} failed: {', '.join(failed)}")

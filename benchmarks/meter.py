"""What a program spent while something was asked of it, and what others had of its core meanwhile."""

import time

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.machine import busy_seconds
from benchmarks.processes import Running

TOLERATED = 0.05
"""The share of the measured core that others may have had in figures that are quoted."""


class Spent(Record):
    """Processor time of all processes of a program; shares are of its core over the time measured."""

    cpu_s: float
    own_share: float
    others_share: float


class Meter:
    """Reads the clocks when made; `stop` tells the difference. Without a program, only the core is watched."""

    def __init__(self, program: Running | None, core: int) -> None:
        self._program = program
        self._core = core
        self._began = time.monotonic()
        self._busy = busy_seconds(core)
        self._cpu = program.cpu_seconds() if program else {}

    def stop(self) -> Spent:
        """What was spent since.

        Raises:
            BenchError: A process of the program was replaced meanwhile, so that its time is lost.
        """
        cpu = self._program.cpu_seconds() if self._program else {}
        if self._program and cpu.keys() != self._cpu.keys():
            raise BenchError(f"{self._program.name} replaced a process while it was measured")
        elapsed = time.monotonic() - self._began
        spent = sum(cpu.values()) - sum(self._cpu.values())
        others = max(0.0, busy_seconds(self._core) - self._busy - spent)
        return Spent(cpu_s=spent, own_share=spent / elapsed, others_share=others / elapsed)

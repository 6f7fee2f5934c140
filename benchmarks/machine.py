"""The machine a figure comes from: which cores are whose, what it is, and how much of it strangers took meanwhile."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import BenchError

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for what is measured; the others for the load and the upstream."""

    measured: int
    load: tuple[int, ...]


def split_cores() -> Cores:
    """Divide the cores this process may use.

    Raises:
        BenchError: Not Linux, or a single core: load and proxy would take turns, and nothing could be said.
    """
    if not Path("/proc/self/stat").exists():
        raise BenchError("the benches read /proc and pin processes to cores, so they need Linux")
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise BenchError("the benches need two cores: one for what is measured, one for the load")
    return Cores(first, tuple(others))


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader needs to know to compare with another machine."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str

    def as_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


def describe_machine() -> Machine:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return Machine(model, cores, round(memory, 1), platform.release(), platform.python_version())


def busy_seconds(core: int) -> float:
    """Time this core has spent on anything, the hypervisor's other guests included."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise BenchError(f"/proc/stat does not list core {core}")

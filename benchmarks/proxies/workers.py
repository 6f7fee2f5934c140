"""Two workers beside one: what the second adds, with load and upstream counted out.

On two cores the load and the upstream share them with the workers, so that rates say nothing. What a worker could do
with a core of its own follows from two things that can be measured all the same: the processor time of a request, and
how evenly the requests fall on the workers. The busiest worker is full first: with a share `m` of the processor time,
two cores serve `1 / (m * cpu)` requests a second where one served `1 / cpu_of_one`.
"""

from pathlib import Path
from statistics import median

from rich.progress import Progress

from benchmarks.figures import Record, Spread
from benchmarks.load import Load
from benchmarks.machine import Cores
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options
from benchmarks.proxies.stage import Subject, open_stage
from benchmarks.report import Figures

CONNECTIONS = 256
"""So many that chance alone spreads them well: a connection stays with the worker that accepted it."""
_WARM_UP_S = 1
_COLUMNS = ("proxy", "one: µs CPU/request", "two: µs CPU/request", "busiest worker", "two, of one's capacity")


class Sample(Record):
    """One round: processor time a request with one worker and with two, and the busiest one's share of it."""

    one_us: float
    two_us: float
    busiest: float

    @property
    def gain(self) -> float:
        """Capacity with two cores over that with one."""
        return self.one_us / (self.busiest * self.two_us)


class Scaling(Record):
    """One proxy in all rounds."""

    name: str
    version: str
    samples: tuple[Sample, ...]
    gain: Spread


def measure(options: Options, *, cores: Cores, folder: Path, progress: Progress) -> list[Scaling]:
    """Measure every proxy with one worker and with two, in interleaved rounds."""
    bar = progress.add_task("workers", total=options.rounds * len(options.proxies))
    with open_stage(PROFILES["bare"], cores, folder) as stage:
        load = stage.load(CONNECTIONS)
        pairs = [
            (
                stage.start(name, connections=CONNECTIONS, limit="machine"),
                stage.start(name, connections=CONNECTIONS, workers=2, limit="machine"),
            )
            for name in options.proxies
        ]
        samples: dict[str, list[Sample]] = {name: [] for name in options.proxies}
        for number in range(1, options.rounds + 1):
            for one, two in pairs:
                progress.update(bar, description=f"workers, round {number}: {one.name}")
                if number == 1:
                    load.run(one.port, _WARM_UP_S)
                    load.run(two.port, _WARM_UP_S)
                one_us, _ = cost(one, load, options.seconds)
                two_us, busiest = cost(two, load, options.seconds)
                samples[one.name].append(Sample(one_us=one_us, two_us=two_us, busiest=busiest))
                progress.advance(bar)
        return [
            Scaling(
                name=one.name,
                version=one.version,
                samples=tuple(samples[one.name]),
                gain=Spread.of([sample.gain for sample in samples[one.name]]),
            )
            for one, _ in pairs
        ]


def cost(subject: Subject, load: Load, seconds: int) -> tuple[float, float]:
    """Processor time a request in µs, and the share of the thread that had most of it."""
    before = subject.running.thread_seconds()
    answers = load.run(subject.port, seconds)
    spent = [now - before.get(thread, 0.0) for thread, now in subject.running.thread_seconds().items()]
    return sum(spent) * 1e6 / answers.requests, max(spent) / sum(spent)


def table(found: list[Scaling]) -> Figures:
    rows = [
        (
            f"{each.name} {each.version}",
            f"{median(sample.one_us for sample in each.samples):.1f}",
            f"{median(sample.two_us for sample in each.samples):.1f}",
            f"{median(sample.busiest for sample in each.samples):.0%}",
            f"{each.gain.median:.2f} ±{each.gain.noise:.0%}",
        )
        for each in found
    ]
    note = "Capacity from processor time a request and the busiest worker's share: load and upstream are counted out."
    return Figures(f"Two workers beside one, {CONNECTIONS} connections", _COLUMNS, rows, notes=[note])

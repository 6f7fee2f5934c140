"""Events that are published at a constant rate, and the time that each took until its handler had it."""

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import anyio

from benchmarks import BenchError
from benchmarks.open_loop import OpenLoop

LATE_MS = 2.0
"""A load that was later than this at its 99th percentile measured itself."""

Publish = Callable[[float], Awaitable[None]]
"""Publishes an event that says when it was due, and has its handler tell `Arrivals`."""


class Arrivals:
    """Takes the time of each event that arrives, from when it was due.

    Args:
        patience_s: How long the last may take.
    """

    def __init__(self, patience_s: float = 20.0) -> None:
        self._patience_s = patience_s
        self._found: list[float] = []
        self._expected = 0
        self._whole = anyio.Event()

    def arrived(self, due: float) -> None:
        """One is in its handler."""
        self._found.append(time.monotonic() - due)
        if len(self._found) == self._expected:
            self._whole.set()

    @contextmanager
    def expecting(self, count: int) -> Generator[list[float]]:
        """Forget what came before, and collect so many; the list is whole after `wait`."""
        self._found, self._expected, self._whole = [], count, anyio.Event()
        yield self._found

    async def wait(self) -> None:
        """Wait until all came.

        Raises:
            BenchError: Some did not.
        """
        with anyio.move_on_after(self._patience_s):
            await self._whole.wait()
        if len(self._found) < self._expected:
            raise BenchError(f"{self._expected - len(self._found)} of {self._expected} events did not arrive")


async def at_rate(rate: int, seconds: float, publish: Publish, arrivals: Arrivals) -> tuple[float, list[float]]:
    """How late the load was in milliseconds, and the seconds that each event took, in order."""
    with arrivals.expecting(int(rate * seconds)) as taken:
        late_ms = await OpenLoop(rate, seconds, publish).run()
        await arrivals.wait()
    return late_ms, sorted(taken)

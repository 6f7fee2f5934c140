"""Work that is begun at a constant rate, whatever the work before it takes: an open loop.

A loop that waits asks less of who is slow, and so never sees the queue that real clients would have formed (coordinated
omission). Here every piece has its moment beforehand, and what is measured runs from that moment.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import BenchError

TICK_S = 0.0005
_TFD_NONBLOCK = os.O_NONBLOCK


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: period and first expiry, each as seconds and nanoseconds."""

    _fields_ = (
        ("period_s", ctypes.c_long),
        ("period_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


def ticking(period_s: float) -> int:
    """A descriptor that becomes readable every period (timerfd): event loops' own timers count whole milliseconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK)
    nanoseconds = round(period_s * 1e9)
    spec = _TimerSpec(0, nanoseconds, 0, nanoseconds)
    if descriptor < 0 or libc.timerfd_settime(descriptor, 0, ctypes.byref(spec), None) < 0:
        raise BenchError(f"timerfd: {os.strerror(ctypes.get_errno())}")
    return descriptor


class OpenLoop:
    """Calls `begin` at a constant rate, each call in a task of its own, with the moment at which it was due.

    Args:
        rate: Calls a second.
        seconds: How long.
    """

    def __init__(self, rate: float, seconds: float, begin: Callable[[float], Awaitable[None]]) -> None:
        self._rate = rate
        self._tick_s = max(TICK_S, 1 / rate)  # no more of them than there is work: they cost time as well
        self._last = round(seconds / self._tick_s)
        self._count = int(rate * seconds)
        self._begin = begin
        self._tick = self._sent = 0
        self._began = 0.0
        self._lateness: list[float] = []

    async def run(self) -> float:
        """Do all of it; the 99th percentile, in milliseconds, of how late it was itself: then it measures itself."""
        done = asyncio.get_running_loop().create_future()
        timer = ticking(self._tick_s)
        try:
            async with asyncio.TaskGroup() as group:
                self._began = time.monotonic()
                asyncio.get_running_loop().add_reader(timer, self._on_tick, timer, group, done)
                await done
        finally:
            asyncio.get_running_loop().remove_reader(timer)
            os.close(timer)
        return part(sorted(self._lateness), 0.99) * 1000

    def _on_tick(self, timer: int, group: asyncio.TaskGroup, done: "asyncio.Future[None]") -> None:
        for _ in range(int.from_bytes(os.read(timer, 8), sys.byteorder)):
            self._tick += 1
            due = self._began + self._tick * self._tick_s
            until = self._count if self._tick >= self._last else round(self._tick * self._tick_s * self._rate)
            while self._sent < until:
                group.create_task(self._one(due))
                self._sent += 1
            self._lateness.append(time.monotonic() - due)
        if self._tick >= self._last and not done.done():
            done.set_result(None)

    async def _one(self, due: float) -> None:
        await self._begin(due)


def part(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of them is; they are in order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

"""What both contestants are asked for: one saga after the other, and many at once; told as one line of JSON."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.figures import Record
from benchmarks.open_loop import part

STEPS = 3
WARM_UP = 5
_PATIENCE_S = 120.0


class Pace(Record):
    """How sagas of three steps went; `cpu_ms` is the processor time of the process for one saga."""

    steps_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


class Paces(Record):
    """One after the other, and many at once."""

    alone: Pace
    together: Pace


async def pace(one: Callable[[int], Awaitable[Any]], count: int, at_once: int) -> Paces:
    """Run `count` sagas one after the other, and then as many by `at_once` at a time."""
    for number in range(WARM_UP):
        await one(number)
    async with asyncio.timeout(_PATIENCE_S):
        return Paces(alone=await _paced(one, count, 1), together=await _paced(one, count, at_once))


async def _paced(one: Callable[[int], Awaitable[Any]], count: int, at_once: int) -> Pace:
    numbers = iter(range(count))
    took: list[float] = []

    async def work() -> None:
        for number in numbers:
            began = time.monotonic()
            await one(number)
            took.append(time.monotonic() - began)

    spent, began = time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    elapsed = time.monotonic() - began
    took.sort()
    return Pace(
        steps_per_second=count * STEPS / elapsed,
        p50_ms=part(took, 0.5) * 1e3,
        p99_ms=part(took, 0.99) * 1e3,
        cpu_ms=(time.process_time() - spent) / count * 1e3,
    )


def arguments() -> tuple[str, int, int]:
    """The database's URL, how many sagas, how many at once: what a contestant is started with."""
    url, count, at_once = sys.argv[1:]
    return url, int(count), int(at_once)

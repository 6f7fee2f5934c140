"""A load that does not wait begins all of its work when it is due, whatever the work before it takes."""

import time

import anyio
import pytest

from benchmarks import BenchError
from benchmarks.arrivals import Arrivals, at_rate
from benchmarks.open_loop import OpenLoop, part


async def test_as_much_is_begun_as_the_rate_says_though_nothing_ends() -> None:
    begun, go_on = list[float](), anyio.Event()

    async def begin(due: float) -> None:
        begun.append(due)
        if len(begun) == 50:
            go_on.set()
        await go_on.wait()

    await OpenLoop(100, 0.5, begin).run()
    assert len(begun) == 50
    assert begun == sorted(begun)
    assert abs(begun[-1] - begun[0] - 0.49) < 0.02


async def test_a_stall_is_charged_to_all_that_was_due_meanwhile() -> None:
    arrivals, stall_s = Arrivals(), 0.3
    stalls = [0.0]

    async def publish(due: float) -> None:
        if stalls:
            stalls.pop()
            time.sleep(stall_s)  # noqa: ASYNC251 - the whole process stalls
        arrivals.arrived(due)

    late_ms, ordered = await at_rate(100, 0.5, publish, arrivals)
    assert len(ordered) == 50
    # Half of the time it stalled, so half of all waited, a quarter for more than half of it.
    assert part(ordered, 0.75) > stall_s / 4
    assert late_ms > stall_s / 2 * 1000


async def test_what_does_not_arrive_is_told() -> None:
    async def publish(due: float) -> None:
        del due

    with pytest.raises(BenchError, match="10 of 10 events did not arrive"):
        await at_rate(100, 0.1, publish, Arrivals(patience_s=0.05))

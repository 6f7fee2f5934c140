"""What keeps filters' calls in bounds, by itself: the timer that interrupts, and tasks that end."""

import asyncio
import subprocess
import sys

from toska_common.filters import Answer, Filter, Request
from toska_gateway.worker.filters.guard import Guard
from toska_gateway.worker.filters.places import Place
from toska_gateway.worker.filters.waiting import Outcome, Waiting
from toska_tests.gateways import plane_here
from toska_tests.waiting import wait_until

ENDS = """
import time
from toska_gateway.worker.filters.guard import Guard

class Slow:
    def __del__(self):
        time.sleep(0.4)

assert Guard().watch()
assert not Guard().watch()  # the timer is taken
slow = Slow()
"""
INTERRUPTED = """
import time
from toska_gateway.worker.filters.guard import Guard, Overdue

guard = Guard()
guard.watch()
for run in (lambda: time.sleep(60), lambda: all(iter(int, 1) is None or True for _ in iter(int, 1))):
    guard.limit_s, guard.since = 0.2, time.perf_counter()
    try:
        run()
    except Overdue:
        assert 0.2 <= time.perf_counter() - guard.since < 20
    else:
        raise AssertionError
    guard.since = 0.0
time.sleep(0.3)  # what is not a call is left alone
"""


def ran(code: str) -> int:
    """The exit code of a program."""
    return subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode


def test_a_process_that_is_watched_ends_in_order() -> None:
    assert ran(ENDS) == 0


def test_calls_over_their_limit_are_interrupted_and_nothing_else_is() -> None:
    assert ran(INTERRUPTED) == 0


async def test_a_call_that_is_cancelled_before_it_began_leaves_nothing_behind() -> None:
    async def hook() -> None:
        raise AssertionError("it must not begin")

    outcomes: list[Outcome] = []
    async with plane_here({}) as (plane, _):
        place = Place(plane, Guard(), "a:B", "all", Filter(), 5.0)
        Waiting(place, hook(), outcomes.append).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert outcomes == []


async def test_any_awaitable_is_waited_for() -> None:
    outcomes: list[Outcome] = []
    async with plane_here({}) as (plane, _):
        place = Place(plane, Guard(), "a:B", "all", Filter(), 5.0)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        Waiting(place, future, outcomes.append)
        answer = Answer("here")
        future.set_result(answer)
        await wait_until(lambda: outcomes == [answer])


async def test_a_call_that_does_not_let_itself_be_cancelled_is_answered_for_all_the_same() -> None:
    end = asyncio.Event()

    async def hook(_: Request) -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    outcomes: list[Outcome] = []
    async with plane_here({}) as (plane, _):
        place = Place(plane, Guard(), "a:B", "all", Filter(), 0.05)
        Waiting(place, hook(Request()), outcomes.append)
        await wait_until(lambda: len(outcomes) == 1)
        end.set()
        await asyncio.sleep(0)
    assert len(outcomes) == 1

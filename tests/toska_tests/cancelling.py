"""Cancelling work at each of its awaits, one after the other."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio

Work = Callable[[], Coroutine[Any, Any, None]]


class _Counted(Awaitable[None]):
    """Runs a coroutine, and calls `act` while it is suspended for the `place`th time (from 0)."""

    def __init__(self, work: Work, place: int, act: Callable[[], object]) -> None:
        self._work = work
        self._place = place
        self._act = act
        self.acted = False

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine = self._work()
        seen = 0
        resume: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731 - it changes below
        while True:
            try:
                awaited = resume()
            except StopIteration:
                return
            if seen == self._place:
                self.acted = True
                asyncio.get_running_loop().call_soon(self._act)
            seen += 1
            try:
                given = yield awaited
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                resume = _thrower(coroutine, error)
            else:
                resume = _sender(coroutine, given)


def _thrower(coroutine: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


def _sender(coroutine: Coroutine[Any, Any, None], value: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


async def cancelled_by_scope(work: Work, place: int) -> bool:
    """Run `work` in a scope of anyio that is cancelled at this await; whether there is such an await."""
    scope = anyio.CancelScope()
    counted = _Counted(work, place, scope.cancel)
    with scope:
        await counted
    return counted.acted


async def cancelled_as_task(work: Work, place: int) -> bool:
    """Run `work` as a task of asyncio that is cancelled once, at this await; whether there is such an await."""
    task: asyncio.Task[None]
    counted = _Counted(work, place, lambda: task.cancel())  # noqa: PLW0108 - there is no task yet

    async def run() -> None:
        await counted

    async with asyncio.TaskGroup() as group:  # a task that was cancelled is no error of its group
        task = group.create_task(run())
    return counted.acted

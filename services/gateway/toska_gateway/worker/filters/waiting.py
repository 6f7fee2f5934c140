"""A call of a filter that waits: a task with a limit of time, which ends when nobody is left to answer."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, Final

from toska_common.filters import Answer, Reject

from toska_gateway.worker.filters.places import Place, refusal
from toska_gateway.worker.policies import Instead

Outcome = Answer | Instead | None
"""An answer, something to be answered instead of what the filter failed at, or nothing to add."""

_running: Final[set["asyncio.Task[object]"]] = set()
"""The loop itself would let go of a task that waits for something which nothing else holds."""


class Waiting:
    """One call under way.

    Args:
        place: Whose.
        call: What its hook returned.
        decide: Called once with the outcome; never after `cancel`.
    """

    __slots__ = ("_call", "_decide", "_place", "_task", "_timer")

    def __init__(self, place: Place, call: Awaitable[object], decide: Callable[[Outcome], None]) -> None:
        loop = asyncio.get_running_loop()
        self._place = place
        self._call = call
        self._decide: Callable[[Outcome], None] | None = decide
        self._task = loop.create_task(_run(place, call))
        _running.add(self._task)
        self._task.add_done_callback(self._done)
        self._timer = loop.call_later(place.timeout_s, self._late)

    def cancel(self) -> None:
        """End it; nobody waits for what it would say."""
        self._decide = None
        self._timer.cancel()
        self._task.cancel()

    def _late(self) -> None:
        decide, self._decide = self._decide, None
        self._task.cancel()
        if decide is not None:
            decide(self._place.timed_out())

    def _done(self, task: "asyncio.Task[object]") -> None:
        _running.discard(task)
        self._timer.cancel()
        close = getattr(self._call, "close", None)
        if close is not None:
            close()  # it may have been cancelled before it began
        error = None if task.cancelled() else task.exception()  # in any case, else it would be complained of
        decide, self._decide = self._decide, None
        if decide is not None:
            decide(self._outcome(task, error))

    def _outcome(self, task: "asyncio.Task[object]", error: BaseException | None) -> Outcome:
        if isinstance(error, Instead):
            return error
        if isinstance(error, Reject):
            return refusal(error)
        if error is not None or task.cancelled():
            return self._place.failed(error or asyncio.CancelledError())
        result = task.result()
        return result if result is None or isinstance(result, Answer) else self._place.answered_wrongly(result)


async def _run(place: Place, call: Awaitable[object]) -> object:
    return await _in_steps(place, call)


@coroutine
def _in_steps(place: Place, call: Awaitable[object]) -> Generator[Any, Any, object]:
    """Run `call`, each of its steps between two waits under the guard."""
    steps = call.__await__()
    try:
        waits_for = place.step(steps.send, None)
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - passed on into the call, cancellation too
                waits_for = place.step(steps.throw, error)
            else:
                waits_for = place.step(steps.send, value)
    except StopIteration as end:
        return end.value

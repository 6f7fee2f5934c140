"""Background work whose failure is never silent.

`supervised_tasks` is a task group that reports a crash (`on_crash`) the moment it happens, so that its service can fail
readiness and stop; after a bare task group fails in a lifespan, uvicorn goes on serving.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger(__name__)


class SupervisedTasks:
    """Starts tasks in a group and tells `on_crash` of the first that fails."""

    def __init__(self, group: TaskGroup, on_crash: Callable[[Exception], None]) -> None:
        self._group = group
        self._on_crash = on_crash

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run `function(*args)` until it ends or the group does."""
        self._group.start_soon(self._guard, function, args, name=_name(function))

    async def _guard(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            await function(*args)
        except Exception as error:
            log.exception("task_crashed", task=_name(function))
            self._on_crash(error)
            raise


@asynccontextmanager
async def supervised_tasks(on_crash: Callable[[Exception], None]) -> AsyncGenerator[SupervisedTasks]:
    """A scope for background tasks; leaving it cancels them."""
    async with anyio.create_task_group() as group:
        try:
            yield SupervisedTasks(group, on_crash)
        finally:
            group.cancel_scope.cancel()


async def every(interval: timedelta, function: Callable[[], Any]) -> None:
    """Call a synchronous `function` once an `interval`, for ever; a late call is not made up for."""
    while True:
        await anyio.sleep(interval.total_seconds())
        function()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))

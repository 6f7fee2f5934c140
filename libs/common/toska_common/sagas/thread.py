"""A thread with an event loop of its own, for what must not touch the loop of the service."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines that other threads hand to it, until it is stopped; what still runs then is cancelled."""

    def __init__(self, name: str) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        # A daemon, so that a process can end though a database does not answer.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Start it, and wait until its loop runs."""
        self._thread.start()
        await asyncio.wrap_future(self._started)

    async def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run a coroutine function there, from the loop of another thread, and wait for what it returns."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*args), self._loop))

    def stop(self) -> None:
        """Cancel all that runs there, and wait for the thread's end; blocks."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=5)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._started.result(timeout=0)

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()

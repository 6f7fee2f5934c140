"""Blocked queries: who waits for which topic, woken by a change, by time, by the caller's leaving, or by the stop.

A watcher is one future; a change costs the watchers of its own topics and nobody else. Keys wake their own watchers
and those of every prefix.
"""

import asyncio
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from starlette.types import Receive


class Woken(Enum):
    """Why a watcher stopped waiting."""

    CHANGED = auto()
    TIMED_OUT = auto()
    GONE = auto()
    """The caller hung up; an answer would reach nobody."""
    STOPPING = auto()


class Watchers:
    """All blocked queries of one registry.

    Args:
        limit: How many may be blocked at a time; `full` says when that is reached.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._topics: dict[str, set[asyncio.Future[Woken]]] = {}
        self._blocked = 0
        self._stopping = False

    @property
    def blocked(self) -> int:
        """How many wait now."""
        return self._blocked

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return self._blocked >= self._limit

    @property
    def stopping(self) -> bool:
        """Whether the registry is about to stop; then nobody waits any more."""
        return self._stopping

    async def wait(self, topics: Sequence[str], timeout_s: float, receive: Receive) -> Woken:
        """Wait for a change of any of `topics`, for `timeout_s` at most, or for the caller to hang up (`receive`)."""
        if self._stopping:
            return Woken.STOPPING
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Woken] = loop.create_future()
        for topic in topics:
            self._topics.setdefault(topic, set()).add(future)
        timer = loop.call_later(timeout_s, _wake, future, Woken.TIMED_OUT)
        self._blocked += 1
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(_until_gone(receive, future))
                try:
                    return await future
                finally:
                    listener.cancel()
        finally:
            self._blocked -= 1
            timer.cancel()
            for topic in topics:
                self._leave(topic, future)

    def wake(self, topics: Iterable[str]) -> None:
        """Wake the watchers of `topics`."""
        for topic in topics:
            for future in self._topics.get(topic, ()):
                _wake(future, Woken.CHANGED)

    def wake_keys(self, keys: Iterable[str]) -> None:
        """Wake the watchers of `keys` and of every prefix of them."""
        for key in keys:
            topics = [key_topic(key)]
            topics += [prefix_topic(key[:length]) for length in range(len(key) + 1)]
            self.wake(topic for topic in topics if topic in self._topics)

    def stop(self) -> None:
        """Release everybody at once, and let nobody wait from now on."""
        self._stopping = True
        for futures in self._topics.values():
            for future in futures:
                _wake(future, Woken.STOPPING)

    def _leave(self, topic: str, future: asyncio.Future[Woken]) -> None:
        futures = self._topics[topic]
        futures.discard(future)
        if not futures:
            del self._topics[topic]


def key_topic(key: str) -> str:
    """Topic of one key."""
    return f"key/{key}"


def prefix_topic(prefix: str) -> str:
    """Topic of all keys that start with `prefix`."""
    return f"keys/{prefix}"


def _wake(future: asyncio.Future[Woken], reason: Woken) -> None:
    if not future.done():
        future.set_result(reason)


async def _until_gone(receive: Receive, future: asyncio.Future[Woken]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    _wake(future, Woken.GONE)

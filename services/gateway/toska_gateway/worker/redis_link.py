"""A worker's connection to Redis: made in the background, kept up, and never waited for.

While Redis is away its users go on alone: each turns off what is shared, says so once in the log, and once that it is
back. How long anybody waits, and what is tried again, is decided here and by the users, not by the client below.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from toska_gateway.worker.telling import Tell

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

GIVE_UP_S: Final = 1.0
"""A connection on which nothing comes for so long is closed."""
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0


class RedisLink:
    """What users of Redis have in common.

    Args:
        loop: Of the worker.
        url: As `TOSKA_CACHE_URL` has it.
        script: Lua that the user calls.
        noun: Begins the names of the log's events: `NOUN_not_shared`, `NOUN_shared_again`.
        tell: Writes to the gateway's log.

    Attributes:
        shared: Whether Redis answers; else it must not be asked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, script: str, noun: str, tell: Tell) -> None:
        self.shared = False
        self._loop = loop
        self._url = url
        self._place = _place_of(url)
        self._script = script
        self._noun = noun
        self._tell = tell
        self._tried = False
        self._then: list[Callable[[], None]] = []  # told of the end of the first attempt
        self._known_away = False
        self._task: asyncio.Task[None] | None = None

    def start(self, then: Callable[[], None]) -> None:
        """Begin to connect, and to stay connected; `then` is called once the first attempt has come to an end."""
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        if self._tried:
            then()
        else:
            self._then.append(then)

    async def stop(self) -> None:
        """Close the connection; whoever waits goes on alone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # -- for those who use it

    async def _probe(self, script: "AsyncScript") -> None:
        """Have Redis write something: a replica, or a memory that is full, is not of use."""
        raise NotImplementedError

    async def _converse(self, client: "Redis", script: "AsyncScript") -> None:
        """Send what is asked and deliver what is answered, for ever."""
        raise NotImplementedError

    def _go_on_alone(self) -> None:
        """Nobody waits any longer for what was asked."""
        raise NotImplementedError

    def _become_shared(self) -> None:
        self.shared = True
        if self._known_away:
            self._known_away = False
            self._tell("info", f"{self._noun}_shared_again", {"store": self._place})

    def _go_apart(self, error: Exception) -> None:
        self.shared = False
        if not self._known_away:
            self._known_away = True
            reason = str(error) or type(error).__name__
            self._tell("warning", f"{self._noun}_not_shared", {"store": self._place, "reason": reason})

    # -- the connection

    async def _run(self) -> None:
        # Imported beside the loop and not in it: it takes 0.15 s.
        await self._loop.run_in_executor(None, import_module, "redis.asyncio")
        pause = _PAUSE_FIRST_S
        while True:
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    client, script = await self._connect()
                pause = _PAUSE_FIRST_S
                async with contextlib.aclosing(client):
                    self._become_shared()
                    self._have_tried()
                    await self._converse(client, script)
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on with what it has itself
                self._go_apart(error)
            finally:
                self.shared = False
                self._go_on_alone()
                self._have_tried()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - so that workers do not come at once
            pause = min(_PAUSE_MAX_S, pause * 2)

    async def _connect(self) -> "tuple[Redis, AsyncScript]":
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its **kwargs have no types
            self._url,
            single_connection_client=True,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        try:
            script = client.register_script(self._script)
            await self._probe(script)
        except BaseException:
            await client.aclose()
            raise
        return client, script

    def _have_tried(self) -> None:
        self._tried = True
        then, self._then = self._then, []
        for call in then:
            self._loop.call_soon(call)


def _place_of(url: str) -> str:
    """Where Redis is, for the log: without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"

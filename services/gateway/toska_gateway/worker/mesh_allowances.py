"""Allowances that all gateways of a mesh share: GCRA in Redis, by Redis's clock, over one connection of a worker.

    apart ──connected──▶ shared ──no answer in time──▶ late ──it comes after all──▶ shared
      ▲                     └──────connection lost───────┐ └──nor within a second──┐
      └──────────── after a growing pause ◀──────────────┴─────────────────────────┘

While the state is not `shared`, whoever asks counts on this machine instead, so that no request waits for a store that
is away; and one that waits does so for WAIT_S at most. What is asked while an answer is under way travels together with
the next, so that a round trip costs about the same for one request as for a hundred.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.redis_link import GIVE_UP_S, RedisLink
from toska_gateway.worker.telling import Tell

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

WAIT_S: Final = 0.05
"""How long a request waits for Redis: many round trips in one data centre, and little beside a request's own time."""
_BATCH: Final = 256
"""Takes in one script: Redis does nothing else meanwhile, for about 0.4 ms."""
_PREFIX: Final = "toska:limit:"

SCRIPT: Final = """
local time = redis.call('TIME')
local now = (time[1] - 1750000000) * 1000000 + time[2]
local function keep(key, due)
  if due > now then
    redis.call('SET', key, string.format('%.17g', due), 'PX', math.ceil((due - now) / 1000))
  else
    redis.call('DEL', key)
  end
end
local slacks = {}
for i = 1, #KEYS do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local due = math.max(now, tonumber(redis.call('GET', KEYS[i]) or now))
  local ahead = due > now + burst
  if ahead then due = now + burst end
  local slack = now + burst - due - interval
  if slack > -0.001 then
    keep(KEYS[i], due + interval)
    slack = math.max(0, slack)
  elseif ahead then
    keep(KEYS[i], due)
  end
  slacks[i] = math.floor(slack * 1000 + 0.5)
end
return slacks
"""
"""Times are microseconds since June 2025, so that a double holds fractions of them; slacks are nanoseconds.

A key lives until its allowance is whole again, so Redis holds those in use and no others. What lies further ahead than
a burst can be comes from a clock that was set back. A negative interval gives back.
"""

Answer = Callable[[float | None], None]
"""Told the slack in seconds (see `Allowances.take`); `None`: nobody answered in time, count on this machine."""


class Take:
    """One request's question, under way."""

    __slots__ = ("_answer", "asked_at", "burst_us", "interval_us", "key")

    def __init__(self, key: int, interval_us: bytes, burst_us: bytes, answer: Answer | None, asked_at: float) -> None:
        self.key = key
        self.interval_us = interval_us
        self.burst_us = burst_us
        self.asked_at = asked_at
        self._answer = answer

    def cancel(self) -> None:
        """Whoever asked no longer wants to know. What has been taken stays taken."""
        self._answer = None

    def settle(self, slack_s: float | None) -> None:
        """Answer, once."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(slack_s)


class MeshAllowances(RedisLink):
    """A worker's way to the allowances in Redis.

    Args:
        loop: The worker's.
        url: As `TOSKA_CACHE_URL` has it.
        tell: Writes to the gateway's log, once for each time that Redis goes away or comes back.

    Attributes:
        shared: Whether Redis answers; else `ask` must not be called.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, tell: Tell) -> None:
        super().__init__(loop, url, SCRIPT, "rate_limits", tell)
        self._queue: list[Take] = []
        self._under_way: Sequence[Take] = ()
        self._asked = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, key: int, interval_us: bytes, burst_us: bytes, answer: Answer) -> Take:
        """Take one from the allowance of `key`; `answer` is called in a later turn of the loop, within WAIT_S.

        Args:
            key: 64 bits that stand for it.
            interval_us: Microseconds in which one more becomes available, as text (`as_text`).
            burst_us: Microseconds that the whole allowance takes to refill.
            answer: Told the slack, or that nobody knows it.
        """
        return self._enqueue(Take(key, interval_us, burst_us, answer, self._loop.time()))

    def give_back(self, key: int, interval_us: bytes, burst_us: bytes) -> None:
        """Return what was taken, since the request was not served after all."""
        if self.shared:
            self._enqueue(Take(key, b"-" + interval_us, burst_us, None, self._loop.time()))

    def _enqueue(self, take: Take) -> Take:
        self._queue.append(take)
        self._asked.set()
        return take

    # -- the connection

    async def _probe(self, script: "AsyncScript") -> None:
        await script(keys=[_PREFIX + "probe"], args=[1, 1_000_000])

    async def _converse(self, client: "Redis", script: "AsyncScript") -> None:
        while True:
            await self._asked.wait()
            takes = self._under_way = self._queue[:_BATCH]
            del self._queue[:_BATCH]
            if not self._queue:
                self._asked.clear()
            self._timer = self._loop.call_at(takes[0].asked_at + WAIT_S, self._come_late)
            async with asyncio.timeout(GIVE_UP_S):
                slacks = await script(
                    keys=[f"{_PREFIX}{take.key:016x}" for take in takes],
                    args=[number for take in takes for number in (take.interval_us, take.burst_us)],
                )
            self._timer.cancel()
            if not self.shared:
                self._become_shared()
            for take, slack in zip(takes, slacks, strict=True):
                self._loop.call_soon(take.settle, slack / 1e9)  # each by itself: what one stumbles over is its own
            self._under_way = ()

    def _come_late(self) -> None:
        self._go_apart(TimeoutError(f"no answer within {WAIT_S * 1000:.0f} ms"))
        self._go_on_alone()

    def _go_on_alone(self) -> None:
        """Nobody goes on waiting; those that ask from here on find that it is not shared."""
        if self._timer is not None:
            self._timer.cancel()
        takes = [*self._under_way, *self._queue]
        self._under_way = ()
        self._queue = []
        self._asked.clear()
        for take in takes:
            self._loop.call_soon(take.settle, None)


def as_text(seconds: float) -> bytes:
    """A time in microseconds, as the script reads it."""
    return repr(seconds * 1e6).encode()

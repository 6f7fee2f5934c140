"""Issuers' keys in one worker, and the requests that wait until the parent has fetched newer ones.

    has no such key ──▶ waits, and the parent is asked ──▶ answered: tried again ──▶ passes, or is refused
                                                      └──▶ no answer in time: likewise

Who comes after the parent was asked cannot count on that answer, which may be older than its key: for it the parent is
asked once more. Names of keys that were asked for in vain are remembered for a while, so that a client that goes on
with an old token does not keep the parent busy; and when the parent says that it will not look for some time, nobody
waits for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from toska_common.jwt.key_set import KeySet

HOLD_S: Final = 4.0
"""So long the parent may take to answer; it does sooner, unless the keys' server is slow."""
MAX_WAITING: Final = 1000
_MAX_MISSING: Final = 256
_MISSING_S: Final = 30.0

Ask = Callable[[str], None]
"""Asks the parent for newer keys of a source; it answers with `KeyRings.take`."""


class KeyWaiter(Protocol):
    """A request that waits for its token's key."""

    @property
    def kid(self) -> str | None:
        """The key's name, if the token says one."""
        ...

    def retry(self) -> bool:
        """Try with the keys that are here now; false if it is still missing."""
        ...

    def give_up(self) -> None:
        """It will not come."""
        ...


class KeyRing:
    """The keys of one source.

    Attributes:
        keys: The keys in force.
        fresh: Whether the source could be read when that was last tried.
    """

    __slots__ = (
        "__weakref__", "_ask", "_loop", "_missing", "_quiet_until", "_round", "_source", "_timer", "_waiting", "fresh",
        "keys",
    )  # fmt: skip

    def __init__(self, source: str, loop: asyncio.AbstractEventLoop, ask: Ask) -> None:
        self.keys = KeySet()
        self.fresh = False
        self._source = source
        self._loop = loop
        self._ask = ask
        self._round = 0  # how often the parent was asked
        self._timer: asyncio.TimerHandle | None = None  # while its answer is awaited
        self._waiting: dict[KeyWaiter, int] = {}  # and from which round on an answer counts
        self._missing: dict[str | None, float] = {}  # names that were asked for in vain, and until when that holds
        self._quiet_until = 0.0

    def wait(self, waiter: KeyWaiter) -> bool:
        """Wait for a key that is not here; false if there is nothing to wait for."""
        now = self._loop.time()
        if self._quiet_until > now or self._missing.get(waiter.kid, 0.0) > now or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[waiter] = self._round + 1
        if self._timer is None:
            self._ask_parent()
        return True

    def leave(self, waiter: KeyWaiter) -> None:
        """Forget one that waits."""
        self._waiting.pop(waiter, None)

    @property
    def retry_after(self) -> int:
        """Seconds after which asking again makes sense."""
        return max(1, ceil(self._quiet_until - self._loop.time()))

    def take(self, message: Mapping[str, Any]) -> None:
        """Take what the parent says: keys, whether they are fresh, and, as an answer, for how long not to ask again.

        Raises:
            toska_common.jwt.keys.UnusableKey: The keys cannot be used; those from before stay.
        """
        if message["version"] != self.keys.version:
            self.keys.replace(message["keys"], message["version"])
            self._missing.clear()
            self._quiet_until = 0.0
        self.fresh = message["fresh"]
        if message["answer"]:
            self._quiet_until = self._loop.time() + message["quiet_s"]
            self._answered()
        else:
            self._retry(0)

    def _ask_parent(self) -> None:
        self._round += 1
        self._timer = self._loop.call_later(HOLD_S, self._not_answered)
        self._ask(self._source)

    def _answered(self) -> None:
        """The parent has looked, or has not within the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._retry(self._round)
        if self._waiting and self._timer is None:
            self._ask_parent()

    def _not_answered(self) -> None:
        self.fresh = False  # as far as anybody here knows
        self._answered()

    def _retry(self, answered: int) -> None:
        """Let all try again; those that the answer of this round counts for do not wait any longer."""
        for waiter, since in [*self._waiting.items()]:
            if waiter not in self._waiting:
                continue  # gone by what another one has brought about
            if waiter.retry():
                self.leave(waiter)
            elif since <= answered:
                self.leave(waiter)
                self._is_missing(waiter.kid)
                waiter.give_up()

    def _is_missing(self, kid: str | None) -> None:
        if not self.fresh:
            return  # nobody knows
        if len(self._missing) >= _MAX_MISSING:
            self._missing.clear()
        self._missing[kid] = self._loop.time() + _MISSING_S


class KeyRings:
    """Every source's keys; a source that no route uses any more is forgotten with the last of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Ask) -> None:
        self._loop = loop
        self._ask = ask
        self._rings: WeakValueDictionary[str, KeyRing] = WeakValueDictionary()

    def ring(self, source: str) -> KeyRing:
        """The keys of a source, none until the parent has sent some."""
        ring = self._rings.get(source)
        if ring is None:
            ring = self._rings[source] = KeyRing(source, self._loop, self._ask)
        return ring

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message about one source; one that nobody uses is passed over."""
        ring = self._rings.get(message["source"])
        if ring is not None:
            ring.take(message)

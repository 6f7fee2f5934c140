"""Requests for the same thing that are under way: one asks the upstream, the others wait for what it brings.

    take off ─► others join ─┬─ landed, with a response ─────► each is served that, if it suits it
                             ├─ landed with none to share ───► all go on by themselves, at once
                             └─ the one who asked went away ─► the next one asks, the others wait on

One that took off before an event is joined by nobody who comes after it, where events may end what it brings.

Each waits only so long, and then goes on by itself. So a response that cannot be shared never makes requests queue.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from toska_gateway.worker.cache.entry import Entry

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange

W = TypeVar("W")


class Flight(Generic[W]):
    """One request under way, and those that wait for it.

    Attributes:
        began_at: When it took off, in monotonic seconds.
    """

    __slots__ = ("_flights", "_waiters", "began_at", "mark")

    def __init__(self, mark: bytes, flights: "dict[bytes, Flight[W]]") -> None:
        self.mark = mark
        self._flights = flights
        self._waiters: dict[Waiter[W], None] = {}
        self.began_at = monotonic()
        flights[mark] = self

    def join(self, waiter: "Waiter[W]") -> None:
        """Wait for it."""
        self._waiters[waiter] = None

    def leave(self, waiter: "Waiter[W]") -> None:
        """Wait no more."""
        self._waiters.pop(waiter, None)

    def land(self, entry: Entry | None) -> None:
        """It is over: with a response for those who wait, or without."""
        if self._flights.get(self.mark) is self:
            del self._flights[self.mark]
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.go_on(entry)

    def hand_over(self) -> "Waiter[W] | None":
        """Whoever asked went away: the first of those who wait, to ask in its place; if there is none, it is over."""
        if not self._waiters:
            self.land(None)
            return None
        waiter = next(iter(self._waiters))
        del self._waiters[waiter]
        waiter.stop()
        return waiter


class Waiter(Generic[W]):
    """A request that waits for another one's response.

    Args:
        flight: What it waits for.
        exchange: The request.
        ticket: What it needs to go on by itself.
        go_on: Called once, with a response or without, unless it is cancelled.
        timer: Made by the caller; lets it go on when it has waited for too long.
    """

    __slots__ = ("_go_on", "_timer", "exchange", "flight", "ticket")

    def __init__(
        self, flight: Flight[W], exchange: "Exchange", ticket: W, go_on: "Callable[[Waiter[W], Entry | None], None]"
    ) -> None:
        self.flight = flight
        self.exchange = exchange
        self.ticket = ticket
        self._go_on = go_on
        self._timer: asyncio.TimerHandle | None = None
        flight.join(self)

    def wait_for(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Go on alone after so long."""
        self._timer = loop.call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        self.flight.leave(self)
        self.go_on(None)

    def go_on(self, entry: Entry | None) -> None:
        """It has come to an end, whatever it was waiting for."""
        self.stop()
        self._go_on(self, entry)

    def stop(self) -> None:
        """Let the time go by."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cancel(self) -> None:
        """The request is over: nobody waits any more."""
        self.stop()
        self.flight.leave(self)

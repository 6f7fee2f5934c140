"""Writing what one turn of the loop has produced at its end, in one go.

A write wakes whoever reads at the other end. Written one by one, with our own work for the next request in between,
each finds the reader asleep again: waking it took an eighth of a worker's processor time. Written together they find
it awake. Nothing waits longer than one turn of the loop, and never for more than `_MOST` requests.

Only what is whole may wait: a request without a body, a response that has come to its end. The order of a connection's
bytes is kept by its `Outlet`, through which everything that is written to it goes.
"""

import asyncio
from typing import Any, Final

_MOST: Final = 32
"""So that the first of a thousand requests that come at once is not answered with the last."""


class Outbox:
    """The connections that have something to write at the end of this turn.

    Attributes:
        outlets: Theirs; an outlet adds itself.
        scheduled: Whether the end of the turn is known to come.
    """

    __slots__ = ("_loop", "outlets", "scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.outlets: list[Outlet] = []
        self.scheduled = False

    def schedule(self) -> None:
        """Have everything written at the end of this turn."""
        self.scheduled = True
        self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.scheduled = False
        self.empty()

    def empty(self) -> None:
        """Write what every outlet holds."""
        outlets, self.outlets = self.outlets, []
        for outlet in outlets:
            held = outlet.held
            if held:
                outlet.held = b""
                outlet.send(held)


class Outlet(asyncio.Transport):
    """A connection's transport, as the protocol that owns it sees it.

    Attributes:
        held: What is written at the end of the turn. It has not left: who loses interest drops it by `abort`.
        send: Writes at once, past what is held; for the outbox.
    """

    __slots__ = ("_outbox", "_raw", "held", "send")

    def __init__(self, raw: asyncio.Transport, outbox: Outbox) -> None:
        self._raw = raw
        self._outbox = outbox
        self.send = raw.write
        self.held = b""

    def write_soon(self, data: bytes) -> None:
        """Write at the end of this turn of the loop, or before whatever else is written."""
        if self.held:
            self.held += data
            return
        self.held = data
        outbox = self._outbox
        outbox.outlets.append(self)
        if len(outbox.outlets) >= _MOST:
            outbox.empty()
        elif not outbox.scheduled:
            outbox.schedule()

    def flush(self) -> None:
        """Write what is held now: the connection is about to end, or its end is about to be seen."""
        held = self.held
        if held:
            self.held = b""
            self.send(held)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        held = self.held
        if held:
            self.held = b""
            data = held + data
        self.send(data)

    def write_eof(self) -> None:
        self.flush()
        self._raw.write_eof()

    def can_write_eof(self) -> bool:
        return self._raw.can_write_eof()

    def close(self) -> None:
        self.flush()
        self._raw.close()

    def abort(self) -> None:
        self.held = b""
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return len(self.held) + self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

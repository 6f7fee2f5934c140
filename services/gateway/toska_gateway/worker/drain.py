"""The rest of a response that nobody wants: read, so that its connection can serve another request.

Most such responses are short, and they come when an upstream has too much to do: a new connection for each of them is
the last thing that it needs. What is long or slow is not worth it.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.caller import Caller

if TYPE_CHECKING:
    from toska_gateway.worker.upstream import Upstream

_MAX_BYTES: Final = 64 * 1024
_MAX_S: Final = 1.0


class Drain(Caller):
    """Takes a connection over, in the middle of a response, and gives it back or closes it."""

    __slots__ = ("_left", "_timer", "_upstream")

    def __init__(self, upstream: "Upstream") -> None:
        upstream.exchange = self
        self._left = _MAX_BYTES
        self._timer: asyncio.TimerHandle = upstream.plane.loop.call_later(_MAX_S, upstream.close)
        self._upstream = upstream

    def response_data(self, payload: bytes) -> None:
        self._left -= len(payload)
        if self._left < 0:
            self._end()

    def response_complete(self, upstream: "Upstream", *, reusable: bool) -> None:
        self._timer.cancel()
        if reusable:
            upstream.release()
        else:
            upstream.close()

    def upstream_lost(self, upstream: "Upstream") -> None:
        self._timer.cancel()

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._upstream.close()

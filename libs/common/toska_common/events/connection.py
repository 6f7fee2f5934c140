"""The connection of a bus to its broker: made while the bus is open, and made again whenever it is lost."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import structlog

from toska_common.events.errors import EventsUnavailable
from toska_common.events.transport import Transport

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[Transport]]
_RECONNECT_S = (0.1, 2.0)


class Connection:
    """The transport, or the wait for it.

    Args:
        connect: Opens the transport.
        bus: Whose it is, for the log.
    """

    def __init__(self, connect: Connect, bus: str) -> None:
        self._connect = connect
        self._bus = bus
        self._transport: Transport | None = None
        self._arrived = anyio.Event()
        self._failure = ""
        self._kept = False

    @property
    def state(self) -> str:
        """What was missing, to whoever waited in vain."""
        if not self._kept:
            return "the bus was not opened (it is while the app runs, or inside `bus.open()`)"
        if self._transport is None:
            return f"what carries events was not reached ({self._failure or 'it has not answered yet'})"
        return "the broker did not confirm"

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._transport is not None and self._transport.connected

    async def get(self) -> Transport:
        """The transport, as soon as there is one."""
        while self._transport is None:
            await self._arrived.wait()
        return self._transport

    async def keep(self, use: Callable[[Transport], Awaitable[None]]) -> None:
        """Connect, have the transport used until it is lost, and connect again, for ever."""
        self._kept = True
        try:
            await self._keep(use)
        finally:
            self._kept = False

    async def _keep(self, use: Callable[[Transport], Awaitable[None]]) -> None:
        wait_s, told = _RECONNECT_S[0], False
        while True:
            try:
                async with self._connect() as transport:
                    self._transport = transport
                    self._arrived.set()
                    wait_s, told = _RECONNECT_S[0], False
                    await use(transport)
            except* EventsUnavailable as errors:
                self._failure = str(errors.exceptions[0])
                if not told:  # once an outage: a mesh without events is one for days
                    log.info("events_unavailable", bus=self._bus, reason=self._failure)
                    told = True
            finally:
                self._transport = None
                self._arrived = anyio.Event()
            await anyio.sleep(wait_s)
            wait_s = min(_RECONNECT_S[1], wait_s * 2)

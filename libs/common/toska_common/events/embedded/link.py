"""One connection to the log, from hello until it breaks."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio

from toska_common.events.embedded.frames import PROTOCOL, BadFrame, FrameReader, Kind, frame, json_frame, json_of
from toska_common.events.embedded.paths import socket_address
from toska_common.events.errors import EventsUnavailable

SILENT_FOR_S = 45.0
"""The log says something every ten seconds; one that has said nothing for so long is not there."""
_GREETING_WITHIN_S = 5.0


class Link(asyncio.Protocol):
    """A connection. `take` is given each frame; `closed` is done once it is over, with the reason if one was told.

    Attributes:
        max_event_bytes: What the log takes at most.
    """

    def __init__(self, take: Callable[[int, bytes], None]) -> None:
        self.max_event_bytes = 0
        self.heard_at = 0.0
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._welcome: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._loop = loop
        self._take = take
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._reason = "the connection to the event log broke"
        self.is_orderly = False

    @classmethod
    async def open(cls, path: Path, token: str, service: str, take: Callable[[int, bytes], None]) -> "Link":
        """Connect and be welcomed.

        Raises:
            EventsUnavailable: Nobody is there, or they do not want us.
        """
        try:
            with anyio.fail_after(_GREETING_WITHIN_S), socket_address(path) as address:
                _, link = await asyncio.get_running_loop().create_unix_connection(lambda: cls(take), address)
                with contextlib.ExitStack() as undo:
                    undo.callback(link.close)
                    link.send(json_frame(Kind.HELLO, {"protocol": PROTOCOL, "token": token, "service": service}))
                    welcome = await link._welcome
                    undo.pop_all()
        except (OSError, TimeoutError) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise EventsUnavailable(f"no event log at {path}: {reason}") from error
        link.max_event_bytes = int(welcome["max_event_bytes"])
        return link

    def send(self, data: bytes) -> None:
        """Send a frame, with what else is sent in this turn of the loop: a write for each is the dearest part of it.

        One that can no longer be sent is lost, as the connection is.
        """
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(data)

    def flush(self) -> None:
        """Write what there is to be sent."""
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def close(self) -> None:
        """End the connection; what is to be sent is."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    async def watch(self) -> str:
        """Wait until it is over, and return why; one over which nothing is heard is ended."""
        while not self.closed.done():
            with anyio.move_on_after(SILENT_FOR_S / 3):
                await asyncio.shield(self.closed)
            if self._loop.time() - self.heard_at > SILENT_FOR_S and self._transport is not None:
                self._reason = "the event log is silent"
                self._transport.abort()
        return self.closed.result()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # of a stream socket; uvloop's is no subclass
        self.heard_at = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._welcome.done():
            self._welcome.set_exception(EventsUnavailable(self._reason))
            self._welcome.exception()  # nobody may be waiting any more
        if not self.closed.done():
            self.closed.set_result(self._reason)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            for kind, payload in self._frames.feed(data):
                self._heard(kind, payload)
        except BadFrame as error:
            self._reason = f"the event log said what cannot be understood: {error}"
            if self._transport is not None:
                self._transport.abort()

    def _heard(self, kind: int, payload: bytes) -> None:
        match kind:
            case Kind.PING:
                self.send(frame(Kind.PONG))
            case Kind.WELCOME:
                with contextlib.suppress(asyncio.InvalidStateError):
                    self._welcome.set_result(json_of(payload, after_id=False))
            case Kind.GOODBYE:
                said = json_of(payload, after_id=False)
                self._reason = f"the event log ended the connection: {said.get('reason')}"
                self.is_orderly = bool(said.get("closing"))
            case _:
                self._take(kind, payload)

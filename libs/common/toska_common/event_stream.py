"""Server-sent events as an ASGI response (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Ends when its teller does, when the reader leaves, when the service stops, and when the reader has not taken a message
within its patience: the socket's buffer is all that anybody may leave unread.
"""

from collections.abc import Awaitable, Callable

import anyio
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from toska_common.errors import MeshError

log = structlog.get_logger(__name__)

HEARTBEAT_S = 15.0
PATIENCE_S = 20.0
RETRY_MS = 1000
"""What a reader whose connection broke is asked to wait."""
STILL_HERE = ": still here\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

Write = Callable[[str], Awaitable[bool]]
"""Sends a message; false once the reader is to be dropped. The first one begins the response."""
Tell = Callable[[Write], Awaitable[None]]
"""Writes messages until there is nothing more to tell."""


def beginning() -> str:
    """What a stream begins with."""
    return f"retry: {RETRY_MS}\n\n"


def message(data: str, *, event: str = "", id_: str = "") -> str:
    """One message; `data` is one line, and an `id_` is where the reader goes on after its connection broke."""
    head = (f"id: {id_}\n" if id_ else "") + (f"event: {event}\n" if event else "")
    return f"{head}data: {data}\n\n"


class EventStream(Response):
    """What `tell` writes.

    An error of the mesh that `tell` raises before it has written is the answer; a later one ends the stream, and the
    reader comes back by itself.

    Args:
        stopping: Set when the service stops.
        heartbeat_s: A comment is sent when nothing else was for so long, so that the connection looks alive.
        patience_s: A reader that takes nothing for so long is dropped.
    """

    def __init__(
        self,
        tell: Tell,
        *,
        stopping: anyio.Event | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__()
        self._tell = tell
        self._stopping = stopping
        self._heartbeat_s = heartbeat_s
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = _Writing(send, self._patience_s)
        failure: MeshError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receive, group.cancel_scope)
            group.start_soon(self._keep_alive, writing, group.cancel_scope)
            if self._stopping is not None:
                group.start_soon(_until_stopped, self._stopping, group.cancel_scope)
            try:
                await self._tell(writing.write)
            except MeshError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            if not writing.begun:
                raise failure
            log.info("event_stream_interrupted", reason=failure.detail)
        if not writing.dropped:
            with anyio.move_on_after(1):
                await writing.end()

    async def _keep_alive(self, writing: "_Writing", scope: anyio.CancelScope) -> None:
        while True:
            await anyio.sleep_until(writing.written_at + self._heartbeat_s)
            late = anyio.current_time() >= writing.written_at + self._heartbeat_s
            if not writing.begun:
                writing.written_at = anyio.current_time()
            elif late and not await writing.write(STILL_HERE):
                scope.cancel()


class _Writing:
    """One response's messages, one after the other."""

    def __init__(self, send: Send, patience_s: float) -> None:
        self._send = send
        self._patience_s = patience_s
        self._lock = anyio.Lock()
        self.begun = False
        self.dropped = False
        self.written_at = anyio.current_time()

    async def write(self, text: str) -> bool:
        """Send, within the reader's patience."""
        async with self._lock:
            if self.dropped:
                return False
            with anyio.move_on_after(self._patience_s) as scope:
                await self._begin()
                await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            if scope.cancelled_caught:
                self.dropped = True
                log.info("event_reader_dropped", reason=f"took nothing for {self._patience_s:g} s")
            self.written_at = anyio.current_time()
            return not self.dropped

    async def end(self) -> None:
        """Say that this was all."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _until_stopped(stopping: anyio.Event, scope: anyio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel()

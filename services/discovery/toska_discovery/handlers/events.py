"""Server-sent events as an ASGI response (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Ends when discovery stops, when the reader leaves, and when it has not taken a message for `PATIENCE_S`: the socket's
buffer is all that a reader may leave unread.
"""

from contextlib import aclosing
from functools import partial

import anyio
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from toska_common.errors import UpstreamUnavailable

from toska_discovery.feed import Feed, Happened, Missed, Quiet

log = structlog.get_logger(__name__)

HEARTBEAT_S = 15.0
PATIENCE_S = 20.0
MAX_READERS = 1000
RETRY_MS = 1000
STILL_HERE = ": still here\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """The feed from a position on; `service` keeps others' events out."""

    def __init__(self, feed: Feed, position: str, *, service: str = "", heartbeat_s: float = HEARTBEAT_S) -> None:
        super().__init__()
        if feed.readers >= MAX_READERS:
            raise UpstreamUnavailable(f"{MAX_READERS} readers follow events already", retry_after_s=RETRY_MS / 1000)
        self._feed = feed
        self._position = position
        self._service = service
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with anyio.create_task_group() as group:
            group.start_soon(partial(_until_gone, receive, group.cancel_scope))
            await self._write(send)
            group.cancel_scope.cancel()

    async def _write(self, send: Send) -> None:
        beginning = f"retry: {RETRY_MS}\n\n"
        if not self._position:
            self._position = self._feed.position
            beginning += _message("ready", "{}", self._position)
        if not await _send(send, beginning):
            return
        written_at = anyio.current_time()
        async with aclosing(self._feed.read(self._position, self._heartbeat_s)) as news_of:
            async for news in news_of:
                # Others' events must not let the connection look dead either.
                late = anyio.current_time() >= written_at + self._heartbeat_s
                text = self._render(news) or (STILL_HERE if late else "")
                if not text:
                    continue
                if not await _send(send, text):
                    log.info("event_reader_dropped", reason=f"took nothing for {PATIENCE_S:g} s")
                    return
                written_at = anyio.current_time()
        with anyio.move_on_after(1):
            await send({"type": "http.response.body", "body": b""})

    def _render(self, news: Happened | Missed | Quiet) -> str:
        match news:
            case Quiet():
                return STILL_HERE
            case Missed():
                return _message("reset", "{}", self._feed.position)
            case Happened() if self._service and news.member.service != self._service:
                return ""
            case Happened():
                return _message(news.type, news.json, self._feed.position_of(news.number))


def _message(event: str, data: str, position: str) -> str:
    return f"id: {position}\nevent: {event}\ndata: {data}\n\n"


async def _send(send: Send, text: str) -> bool:
    with anyio.move_on_after(PATIENCE_S) as scope:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
    return not scope.cancelled_caught


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

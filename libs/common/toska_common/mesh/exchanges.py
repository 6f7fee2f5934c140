"""Requests in progress: counted, and ended when the server stops and they would not end by themselves.

uvicorn waits for every open response, and an event stream or a WebSocket never ends; so it would wait for ever.
"""

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from toska_common.errors import UpstreamUnavailable
from toska_common.problem import send_problem

ENDLESS_TYPES = (b"text/event-stream", b"multipart/x-mixed-replace")
GOING_AWAY = 1012
"""WebSocket close code "service restart" (IANA registry of RFC 6455): clients may connect again."""


class Exchange:
    """One request, or one WebSocket, and what has been answered so far."""

    __slots__ = (
        "_receive",
        "_scope",
        "_send",
        "_task",
        "ended",
        "endless",
        "finished",
        "started",
        "status",
        "stopping",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stopping: bool) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self.status = 500  # what a server answers if the app raises before it has
        self.endless = scope["type"] == "websocket"
        self.started = False
        self.finished = False
        self.ended = False
        self.stopping = stopping

    async def send(self, message: Message) -> None:
        """The ASGI `send` of the app."""
        kind = message["type"]
        if kind == "http.response.start":
            self.started = True
            self.status = message["status"]
            self.endless = _is_endless(message.get("headers", ()))
        elif kind == "http.response.body":
            self.finished = not message.get("more_body", False)
        elif kind == "websocket.accept":
            self.started = True
            self.status = 101
        elif kind == "websocket.close":
            self.finished = True
        await self._send(message)
        if self.stopping and self.endless and self.started and not self.finished:
            self.end()

    def end(self) -> None:
        """Stop the app's work on it; `finish` then says goodbye."""
        if self._task is not None and not self.ended:
            self.ended = True
            self._task.cancel()

    async def finish(self) -> None:
        """After `end`: complete what can be completed.

        Raises:
            CancelledError: An ordinary response was cut in its middle, and the connection must show that.
        """
        if self._scope["type"] == "websocket":
            if not self.finished:
                await self._send({"type": "websocket.close", "code": GOING_AWAY, "reason": "service restart"})
        elif not self.started:
            self.status = 503
            await send_problem(
                UpstreamUnavailable("the service is stopping and could not finish this in time"),
                self._scope,
                self._receive,
                self._send,
            )
        elif self.endless:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not self.finished:
            raise asyncio.CancelledError


class Exchanges:
    """All exchanges in progress."""

    def __init__(self) -> None:
        self._open: set[Exchange] = set()
        self._stopping = False

    def begin(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        """A request came in."""
        exchange = Exchange(scope, receive, send, stopping=self._stopping)
        self._open.add(exchange)
        return exchange

    def end(self, exchange: Exchange) -> None:
        """It is over."""
        self._open.discard(exchange)

    def end_endless(self) -> None:
        """End event streams and WebSockets, those that are yet to come included."""
        self._stopping = True
        for exchange in [*self._open]:
            exchange.stopping = True
            if exchange.endless:
                exchange.end()

    def end_all(self) -> None:
        """End everything."""
        for exchange in [*self._open]:
            exchange.end()


def _is_endless(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(ENDLESS_TYPES) for name, value in headers)

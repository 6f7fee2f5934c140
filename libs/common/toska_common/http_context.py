"""What a request brings along and its outgoing calls take further: its trace and the time that is left for it.

    traceparent, tracestate    W3C trace context; a new trace is begun where there is none
    x-toska-deadline-ms        milliseconds until the caller stops waiting, counted from when it sent the request

The deadline is a remaining time and not a time of day, because clocks of machines differ (as in gRPC's `grpc-timeout`).
"""

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from toska_common import trace

DEADLINE_HEADER = "x-toska-deadline-ms"
CALLER_HEADER = "x-toska-caller"
"""Name of the calling service: a hint for graphs and logs, never proof of anything."""

MAX_DEADLINE_MS = 24 * 3600 * 1000

deadline: ContextVar[float | None] = ContextVar("toska_deadline", default=None)
"""When the work in hand should be done, on `time.monotonic`'s clock; `None` without a limit."""

CONTEXT_HEADERS = frozenset({b"traceparent", b"tracestate", DEADLINE_HEADER.encode()})


def remaining_s() -> float | None:
    """Seconds left for the work in hand, below zero when it is late; `None` without a limit."""
    end = deadline.get()
    return None if end is None else end - time.monotonic()


def pick_headers(scope: Scope, names: frozenset[bytes]) -> dict[bytes, str]:
    """The headers of a request that are among `names`, in one pass; of repeated ones the last."""
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in names}


def enter(headers: Mapping[bytes, str]) -> None:
    """Make the context that a request's headers carry the current one.

    Nothing takes it back: servers give each request a task, and so a context, of its own; and the handler of an
    unforeseen exception, which runs outside of every middleware, must still know the trace.
    """
    parent = trace.parse_traceparent(headers.get(b"traceparent", ""), headers.get(b"tracestate", ""))
    # This hop is a span of its own: what it calls and logs belongs to it and not to its caller's span.
    trace.current.set(trace.new_trace() if parent is None else replace(parent, span_id=os.urandom(8).hex()))
    deadline.set(_parse_deadline(headers.get(DEADLINE_HEADER.encode())))


class HTTPContextMiddleware:
    """ASGI middleware that calls `enter` for every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            enter(pick_headers(scope, CONTEXT_HEADERS))
        await self.app(scope, receive, send)


def _parse_deadline(text: str | None) -> float | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    return time.monotonic() + min(int(text), MAX_DEADLINE_MS) / 1000

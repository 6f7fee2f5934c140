"""The trace a piece of work belongs to: W3C trace context, without any SDK.

A request's `traceparent` is kept in a context variable, so logs, errors and outgoing calls can name it. Where
OpenTelemetry is switched on (`toska_common.telemetry`), its current span comes first.
Source: https://www.w3.org/TR/trace-context/
"""

import os
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One hop of a trace; ids are lower-case hex, 32 and 16 digits."""

    trace_id: str
    span_id: str
    sampled: bool = False
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header for the next hop."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


current: ContextVar[TraceContext | None] = ContextVar("toska_trace", default=None)


def new_trace(*, sampled: bool = False) -> TraceContext:
    """Start a trace of our own."""
    return TraceContext(os.urandom(16).hex(), os.urandom(8).hex(), sampled)


def parse_traceparent(header: str, tracestate: str = "") -> TraceContext | None:
    """Read a `traceparent`; `None` for one that the specification says to ignore."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), tracestate)


def current_ids() -> tuple[str, str] | None:
    """`(trace_id, span_id)` of the work in hand: OpenTelemetry's span if one is active, else our own context."""
    api = sys.modules.get("opentelemetry.trace")  # never imported for this: without it there can be no span
    if api is not None:
        span = api.get_current_span().get_span_context()
        if span.is_valid:
            return f"{span.trace_id:032x}", f"{span.span_id:016x}"
    context = current.get()
    return None if context is None else (context.trace_id, context.span_id)


def current_trace_id() -> str:
    """The trace id to quote in an error; a new one where there is no trace, so that every error has one."""
    ids = current_ids()
    return ids[0] if ids is not None else os.urandom(16).hex()


def next_hop(parent: TraceContext) -> TraceContext:
    """The same trace, one hop further."""
    return TraceContext(parent.trace_id, os.urandom(8).hex(), parent.sampled, parent.tracestate)

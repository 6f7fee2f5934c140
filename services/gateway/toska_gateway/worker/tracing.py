"""Whose trace a request belongs to: W3C trace context, as it comes in and as it goes on.

Sources: https://www.w3.org/TR/trace-context-2/, and its test suite where the text leaves a choice.
"""

import random
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

SAMPLED: Final = 1
_KNOWN_FLAGS: Final = 3
"""Sampled, and random trace id; of other flags nobody knows what passing them on would say (§3.2.2.5)."""
_MAX_MEMBERS: Final = 32

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = rb"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rb"(" + _KEY + rb")=" + _VALUE)


class Parent(NamedTuple):
    """What the caller says of its part of the trace; `state` is its tracestate, joined, or empty."""

    trace_id: bytes
    span_id: bytes
    flags: int
    state: bytes


def new_trace_ids() -> bytes:
    """48 random hex digits: a trace id (32), then a span id (16). Not secret, so the fast generator serves."""
    return random.getrandbits(192).to_bytes(24, "big").hex().encode()  # (in half the time that % takes)


def new_span_id() -> bytes:
    """16 random hex digits, not all 0."""
    return b"%016x" % (random.getrandbits(64) or 1)


def read_parent(special: Mapping[bytes, tuple[bytes, ...]]) -> Parent | None:
    """The caller's context by a head's special fields; None if there is none or it is to be ignored (§3.2).

    A later version is read as far as this one goes, and its traceparent is not continued beyond that (§3.2.4).
    """
    given = special.get(b"traceparent", ())
    match = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    return Parent(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _read_state(special.get(b"tracestate", ())))


def _read_state(lines: tuple[bytes, ...]) -> bytes:
    """The vendors' parts as one list; empty if it breaks a rule, for then nobody could tell what it says (§3.3.1)."""
    if not lines:
        return b""
    members = [stripped for member in b",".join(lines).split(b",") if (stripped := member.strip(b" \t"))]
    if len(members) > _MAX_MEMBERS:
        return b""
    keys: set[bytes] = set()
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in keys:
            return b""
        keys.add(match[1])
    return b",".join(members)


def traceparent(trace_id: bytes, span_id: bytes, flags: int) -> bytes:
    """The field for the next hop."""
    return b"00-%b-%b-%02x" % (trace_id, span_id, flags)

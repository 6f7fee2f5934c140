"""HTTP/1.1 as bytes: a client that sends what it is told, and an upstream that records what it was sent.

Neither hides anything: what a test sends goes out as it stands, and messages are read by the letter of RFC 9112, so
that a proxy's mistake cannot be smoothed over by a forgiving library. Every wait has a deadline.
"""

from toska_tests.raw_http.clients import Client, ask, connect, connected
from toska_tests.raw_http.messages import OK, chunks, get, request, response
from toska_tests.raw_http.upstreams import (
    Conversation,
    Script,
    Upstream,
    answering,
    black_hole,
    resetting,
    silent,
    upstream,
)
from toska_tests.raw_http.wire import PATIENCE_S, CutOff, Message, Wire

__all__ = [
    "OK",
    "PATIENCE_S",
    "Client",
    "Conversation",
    "CutOff",
    "Message",
    "Script",
    "Upstream",
    "Wire",
    "answering",
    "ask",
    "black_hole",
    "chunks",
    "connect",
    "connected",
    "get",
    "request",
    "resetting",
    "response",
    "silent",
    "upstream",
]

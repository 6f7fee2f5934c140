"""The control channel between the gateway's parent and a worker: JSON messages on a Unix socket pair.

Parent to worker:
    {"op": "hello", "management": [[address, port], ...]}
    {"op": "table", "server": {...}, "clusters": {name: settings}}    begins a new table
    {"op": "routes", "routes": [...]}                                 a slice of it, small enough to compile in one go
    {"op": "endpoints", "cluster", "version", "reset", "upsert": [...], "remove": [...]}
    {"op": "commit", "seq"}        everything since the last commit takes effect at once, or nothing does
    {"op": "stats", "seq"}
    {"op": "drain", "seconds"}
Worker to parent:
    {"op": "ready"}, {"op": "ack", "seq", "problems": [...]}, {"op": "stats", "seq", ...}, {"op": "log", "event", ...}

The channel is also the lifeline: a worker whose parent is gone reads its end and exits.
"""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any, cast

_LENGTH = struct.Struct("!I")
MAX_MESSAGE = 64 * 1024 * 1024


def encode(message: dict[str, Any]) -> bytes:
    """A message in wire form: its length, then JSON."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class ControlChannel(asyncio.Protocol):
    """One end of the channel; `on_message` is called for each message, `on_lost` when the other side is gone."""

    def __init__(self, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > MAX_MESSAGE:
                raise ValueError(f"a control message of {length} bytes")
            end = position + _LENGTH.size + length
            if len(buffer) < end:
                break
            message = json.loads(buffer[position + _LENGTH.size : end])
            position = end
            self._on_message(message)
        del buffer[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; dropped if the other side is gone, which `on_lost` has told."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def close(self) -> None:
        """Close this end once everything is written."""
        if self._transport is not None:
            self._transport.close()

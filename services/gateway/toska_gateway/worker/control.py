"""The control channel between the gateway's parent and a worker: JSON messages on a Unix socket pair.

Parent to worker:
    {"op": "hello", "management": [[address, port], ...], "pseudonym", "listeners": [spec, ...], "ticket_secret",
     "filters_folder", "cache_url", "zone"}
                                   (the pseudonym is the gateway's name in Via)
    {"op": "table", "server": {...}, "removed_clusters", "anew", "removed_routes"}
                                   begins a change of the table in force, or a new one; only what changes is told
    {"op": "clusters", "clusters": {name: settings}}   a slice of the clusters in it that are new or have changed
    {"op": "routes", "routes": [...]}                  a slice of the routes in it, small enough to compile in one go
    {"op": "places", "places": [[name, after], ...]}   where they stand, in order; an `after` of null: after the last
    {"op": "endpoints", "cluster", "version", "reset", "upsert": [...], "remove": [...]}
    {"op": "tls", "server": material, "clusters": {name: material}}   certificates and keys, as text
    {"op": "health", "cluster", "unhealthy": [key, ...]}              those that fail its health check, from now on
    {"op": "tickets", "secret"}                                       what TLS sessions are sealed with from now on
    {"op": "keys", "source", "version", "keys": [jwk, ...], "fresh", "answer", "quiet_s"}
                                   what tokens are verified with; an answer says for how long not to ask again
    {"op": "commit", "seq"}        everything since the last commit takes effect at once, or nothing does; first the
                                   worker prepares it, in slices between which it serves
    {"op": "stats", "seq"}
    {"op": "explain", "seq", "request", "peer", "scheme"}    what would become of a request
    {"op": "purge", "seq", "url" or "route", if not everything}    forget stored responses
    {"op": "forget", "urls": [...]}    another worker has seen these change
    {"op": "outdated", "groups", "urls", "routes"}    events end these, of routes that listen; all if nothing is named
    {"op": "drain", "seconds", "grace"}    ends within so many seconds; idle connections are kept for the grace
Worker to parent:
    {"op": "ready", "compiled"}        it listens; whether its hot modules are machine code
    {"op": "ack", "seq", "problems": [...], "crowded"}     crowded: place all routes anew
    {"op": "stats", "seq", ...},
    {"op": "explained", "seq", "told": {...}}
    {"op": "log", "level", "event", "fields"}    a line for the log, which workers do not write themselves
    {"op": "keys-wanted", "source"}    a token names a key that is not among them; answered with "keys"
    {"op": "purged", "seq", "entries"}
    {"op": "forget", "urls": [...]}    for all other workers
    {"op": "spans", "spans": [...]}              of sampled requests that have ended (`worker.spans`)
    {"op": "left", ...}            the last word of one that ends: its counters

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
    """One end of the channel; `on_message` is called for each message, `on_lost` when the other side is gone.

    Of the messages that one read brings, each but the first waits for another turn of the loop: a table comes in slices
    that are small enough to compile between two requests, and a read holds many of them.
    """

    def __init__(self, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._delivering = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._delivering:
            self._deliver()

    def _deliver(self) -> None:
        try:
            self._deliver_one()
        except BaseException:
            # After half of a conversation neither end knows what the other has: it is over.
            if self._transport is not None:
                self._transport.abort()
            raise

    def _deliver_one(self) -> None:
        self._delivering = False
        end = self._end_of_message()
        if end is None:
            return
        body = self._buffer[_LENGTH.size : end]
        del self._buffer[:end]
        if self._end_of_message() is not None:
            self._delivering = True
            asyncio.get_running_loop().call_soon(self._deliver)
        self._on_message(json.loads(body))

    def _end_of_message(self) -> int | None:
        """Where the first message in the buffer ends, if all of it is there."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_MESSAGE:
            raise ValueError(f"a control message of {length} bytes")
        end = _LENGTH.size + length
        return end if len(self._buffer) >= end else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; dropped if the other side is gone, which `on_lost` has told."""
        if self._transport is not None:
            self._transport.write(encode(message))

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close this end once everything is written."""
        if self._transport is not None:
            self._transport.close()

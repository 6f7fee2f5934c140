"""Frames of the embedded log's socket: a length, a kind, and what the kind says.

    client                                        server
    HELLO {protocol, token, service}         ->
                                             <-   WELCOME {protocol, access, max_event_bytes}
    PUBLISH id, messages                     ->
                                             <-   CONFIRM ids
    SUBSCRIBE id, {patterns, group, ...}     ->
                                             <-   SUBSCRIBED id
                                             <-   DELIVER id, entries
    ACK id, offsets / RETRY / REJECT         ->
    CALL id, {do, ...}                       ->
                                             <-   RESULT id, {...}
    READ id, {patterns, after, ...}          ->
                                             <-   PAGE id, done, next, entries
                                             <-   FAILED id, problem      to whatever asked under that id
    PING / PONG                              <->
                                             <-   GOODBYE {reason, closing}  and the connection ends

Ids are the client's, one sequence for everything it asks. All numbers are little-endian. A frame that is too long or
of no known kind ends the connection: nothing after it can be trusted.
"""

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, cast

PROTOCOL = 1
MAX_FRAME = 24 << 20
MAX_BATCH = 16 << 20
"""Bytes of one call's events; a call is one frame, so that all of it is stored or none."""

_HEAD = struct.Struct("<IB")
_ID = struct.Struct("<I")
HEAD_BYTES = _HEAD.size
ID_BYTES = _ID.size


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    PUBLISH = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    ACK = 5
    RETRY = 6
    REJECT = 7
    CALL = 8
    READ = 9
    PONG = 10
    WELCOME = 65
    CONFIRM = 66
    FAILED = 67
    SUBSCRIBED = 68
    DELIVER = 69
    RESULT = 70
    PAGE = 71
    PING = 72
    GOODBYE = 73


class BadFrame(Exception):
    """What came is no frame of this protocol; the connection has to end."""


def frame(kind: Kind, *parts: bytes) -> bytes:
    """One frame; `parts` are joined."""
    return b"".join((_HEAD.pack(sum(map(len, parts)), kind), *parts))


def id_bytes(number: int) -> bytes:
    """An id, as frames begin with it."""
    return _ID.pack(number)


def id_of(payload: bytes) -> int:
    """The id that a payload begins with.

    Raises:
        BadFrame: It is shorter.
    """
    if len(payload) < ID_BYTES:
        raise BadFrame("a frame without its id")
    return _ID.unpack_from(payload)[0]


def json_frame(kind: Kind, content: Any, number: int | None = None) -> bytes:
    """A frame of JSON, after an id if there is one."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return frame(kind, body) if number is None else frame(kind, _ID.pack(number), body)


def json_of(payload: bytes, *, after_id: bool = True) -> dict[str, Any]:
    """The JSON object of a payload.

    Raises:
        BadFrame: It is none.
    """
    try:
        content = json.loads(payload[ID_BYTES:] if after_id else payload)
    except (ValueError, RecursionError) as error:
        raise BadFrame("a frame whose JSON cannot be read") from error
    if not isinstance(content, dict):
        raise BadFrame("a frame whose JSON is no object")
    return cast("dict[str, Any]", content)


class FrameReader:
    """Cuts a stream of bytes into frames. What is kept between two reads is at most one frame.

    Args:
        max_frame: Bytes after the head of the longest frame that may come.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self._kept = bytearray()
        self._needed = HEAD_BYTES

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete now, as kind and payload; to be taken to the end before more is fed.

        Raises:
            BadFrame: One is too long; those before it were given.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data = bytes(self._kept)
            self._kept.clear()
        at, end = 0, len(data)
        self._needed = HEAD_BYTES
        while end - at >= HEAD_BYTES:
            length, kind = _HEAD.unpack_from(data, at)
            if length > self.max_frame:
                raise BadFrame(f"a frame of {length} bytes; {self.max_frame} are allowed")
            if end - at < HEAD_BYTES + length:
                self._needed = HEAD_BYTES + length
                break
            at += HEAD_BYTES
            yield kind, data[at : at + length]
            at += length
        if at < end:
            self._kept += memoryview(data)[at:]

"""Bodies whose length is not known beforehand: taking off the chunked coding (RFC 9112 §7.1)."""

import re
from typing import Final

from toska_gateway.worker.http1.grammar import CRLF, FIELD, BadMessage

_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILERS: Final = 16 * 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class ChunkedDecoder:
    """Takes the chunked coding off a body (RFC 9112 §7.1), strictly; trailers are checked and dropped.

    `feed` returns the payload in `data`; afterwards `rest` is `None` while the body goes on, else what follows it.
    """

    __slots__ = ("_buffer", "_left", "_trailer_bytes", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # > 0: bytes of the chunk; 0: a size line is due; -1: CRLF after a chunk is due; -2: trailers
        self._trailer_bytes = 0
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return their payload.

        Raises:
            BadMessage: Malformed chunking, status 400.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position, size = 0, len(data)
        out: list[bytes] = []
        while position < size:
            if self._left > 0:
                piece = data[position : position + self._left]
                out.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._left = -1
            elif self._left == -1:
                if size - position == 1 and data[position] == 0x0D:
                    break
                if data[position : position + 2] != CRLF:
                    raise BadMessage(400, "bad-chunk", "a chunk is followed by CRLF")
                position += 2
                self._left = 0
            else:
                end = data.find(b"\n", position)
                limit = _MAX_CHUNK_LINE if self._left == 0 else _MAX_TRAILERS
                if (end if end >= 0 else size) - position > limit:
                    raise BadMessage(400, "bad-chunk", "a chunk-size or trailer line is too long")
                if end < 0:
                    break
                line = data[position:end]
                position = end + 1
                if line[-1:] != b"\r":
                    raise BadMessage(400, "bad-chunk", "lines end with CRLF")
                if self._take_line(line[:-1]):
                    self.rest = data[position:]
                    return b"".join(out) if len(out) != 1 else out[0]
        self._buffer = data[position:]
        return b"".join(out) if len(out) != 1 else out[0]

    def _take_line(self, line: bytes) -> bool:
        """Take a size or trailer line; tells whether it was the body's last."""
        if self._left == 0:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadMessage(400, "bad-chunk", "a chunk starts with its size in hexadecimal")
            self._left = int(match[1], 16) or -2
            return False
        if not line:
            return True
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILERS or FIELD.fullmatch(line) is None:
            raise BadMessage(400, "bad-chunk", "malformed or too many trailers")
        return False

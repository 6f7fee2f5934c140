"""TLS on one connection: a protocol to the socket's transport below, a transport to the protocol above.

    handshaking ──▶ open ──▶ ended (we or the other side said close_notify) ──▶ lost
         └────────▶ failed

It is synchronous, so a connection costs no task and a record no turn of the loop. What is above sees plain bytes and
the same calls as over plain TCP; what is decrypted is delivered at once, so flow control is the socket's own. uvloop's
own TLS takes 256 KiB of address space for each connection, cannot half-close, and hides whether the other side said
close_notify, without which a response that ends with its connection may have been cut off (RFC 8446 §6.1).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

_RECORD: Final = 16384
"""The most plain text that one record carries (RFC 8446 §5.1)."""
_UNTAKEN: Final = 4 << 20
"""Bytes that the other side may leave untaken while it asks for new keys, each of which is answered."""


class CutOff(ConnectionResetError):
    """The other side ended the connection without close_notify: what it sent may not be all."""


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """One connection's TLS.

    Args:
        context: Whose certificates and rules hold.
        above: The protocol that gets the plain bytes; it hears of the connection once the handshake is done.
        on_open: Called when the handshake is done, just before `above.connection_made`.
        on_failed: Called if it comes to nothing; then `above` hears nothing at all.
        server_side: Whether the other side is the client.
        server_name: What a client asks for and verifies.
    """

    __slots__ = (
        "_above", "_closed", "_error", "_finished", "_half_open", "_incoming", "_object", "_on_failed", "_on_open",
        "_open", "_outgoing", "_peer_ended", "_raw", "_read", "_said_end", "_write",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        above: asyncio.Protocol,
        *,
        on_open: Callable[[], None],
        on_failed: Callable[[Exception], None],
        server_side: bool,
        server_name: str | None = None,
    ) -> None:
        super().__init__()
        self._above: asyncio.Protocol = above
        self._on_open = on_open
        self._on_failed = on_failed
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        self._read = self._object.read
        self._write = self._object.write
        self._raw: asyncio.Transport = cast("asyncio.Transport", None)
        self._open = False
        self._finished = False  # failed or lost: nobody is told any more
        self._closed = False  # by what is above
        self._said_end = False  # our close_notify is out
        self._peer_ended = False  # theirs came
        self._half_open = False  # ... and what is above goes on
        self._error: Exception | None = None

    # -- asyncio.Protocol, towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        if not self._object.server_side:
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        self._incoming.write(data)
        if self._open:
            self._take()
        else:
            self._shake()

    def eof_received(self) -> bool:
        if self._finished:
            return False
        if not self._open:
            self._fail(CutOff("the connection was closed during the handshake"))
            return False
        if self._peer_ended:
            return self._half_open and not self._closed
        if not self._object.server_side:
            self._break(CutOff("the connection was closed without close_notify"))
            return False
        # Many clients just close. A request's own framing says whether it is whole, so nothing can be cut off unseen.
        return self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._finished:
            return
        if not self._open:
            self._fail(exc or CutOff("the connection was closed during the handshake"))
            return
        self._finished = True
        above = self._above
        self._let_go()
        above.connection_lost(self._error or exc)

    def pause_writing(self) -> None:
        if self._open:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._open and not self._finished:
            self._above.resume_writing()

    # -- the handshake, reading, the end

    def _shake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (OSError, ValueError) as error:  # (ssl.SSLError is an OSError, a certificate's may be a ValueError)
            self._flush()  # the alert that says why
            self._fail(error)
            return
        self._open = True
        self._flush()
        self._on_open()
        self._on_open = self._on_failed = _nothing  # whoever waited is done, and need not live as long as this
        self._above.connection_made(self)
        if self._incoming.pending and not self._finished:
            self._take()

    def _take(self) -> None:
        """Decrypt all that is here and deliver it in one go."""
        pieces: list[bytes] = []
        read, incoming = self._read, self._incoming
        error: Exception | None = None
        ended = False
        try:
            while True:
                piece = read(_RECORD)
                if not piece:
                    ended = True
                    break
                pieces.append(piece)
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as broken:
            error = broken
        if self._outgoing.pending:
            self._flush()  # an alert, or the answer to a key update
            if self._raw.get_write_buffer_size() > _UNTAKEN:
                error = CutOff("the other side has us answer and takes no answer")
        if pieces:
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._finished:
            return
        if ended:
            self._peer_ended = True
            if not self._end():
                self.close()
        elif error is not None and not self._said_end:
            self._break(error)

    def _end(self) -> bool:
        """Tell that the other side has said all it will; returns whether what is above goes on speaking."""
        if self._half_open or self._closed:
            return self._half_open
        self._half_open = bool(self._above.eof_received())
        return self._half_open

    def _fail(self, error: Exception) -> None:
        self._finished = True
        on_failed = self._on_failed
        raw = self._raw
        self._let_go()
        on_failed(error)
        raw.close()

    def _break(self, error: Exception) -> None:
        if self._error is None:  # what fails after the first failure says nothing of why
            self._error = error
        self._raw.abort()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._said_end and not self._raw.is_closing():
            self._raw.write(data)

    def _let_go(self) -> None:
        # What is above refers to us: without this every connection would leave a cycle to the collector.
        self._above = asyncio.Protocol()
        self._on_open = self._on_failed = _nothing

    # -- asyncio.Transport, towards what is above

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if self._said_end or self._finished or self._error is not None or not data:
            return
        try:
            sent = self._write(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[self._write(rest) :]
        except ssl.SSLError as error:
            self._break(error)
            return
        self._raw.write(self._outgoing.read())

    def writelines(self, list_of_data: "Iterable[bytes | bytearray | memoryview[Any]]") -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Say close_notify and close this half of the connection; the other half goes on."""
        self._say_end()
        if not self._raw.is_closing():
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._say_end()
            self._raw.close()

    def abort(self) -> None:
        self._closed = True
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closed or self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._object if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def _say_end(self) -> None:
        if self._said_end or self._finished:
            return
        # It writes our close_notify, then looks for theirs, which need not be here.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        self._flush()
        self._said_end = True


def _nothing(*_: object) -> None:
    return


def describe(error: BaseException) -> str:
    """Why a handshake came to nothing, in words that hold no secret and no bytes of the other side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "protocol error"
        return _PLAINLY.get(reason) or reason.replace("_", " ").lower()
    if isinstance(error, CutOff):
        return str(error)
    return "the connection was reset" if isinstance(error, ConnectionError) else type(error).__name__


_PLAINLY: Final = {
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
    "HTTP_REQUEST": "the other side does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "the connection was closed during the handshake",
}

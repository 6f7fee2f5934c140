"""The Consul port's connections: uvicorn's, with a short way for the requests that come by the thousand.

A lookup or a renewal that is there whole, asks for nothing unusual and need not wait is answered in the very call that
brought its bytes: no parser's callbacks, no task, no ASGI messages, which together take twice as long as the answer
itself. The handlers are the same, so the short way can only be faster and not different. Whatever is not plain in
every byte (another method, a body, escapes, any field about framing) goes the long way, unread.
"""

import asyncio
import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from toska_discovery.consul.app import ConsulApi
from toska_discovery.consul.request import Reply

_PLAIN_BYTES: Final = 2048
_END: Final = b"\r\n\r\n"
_REQUEST_LINE = re.compile(
    rb"(GET|PUT) (/v1(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+)(?:\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]*))? HTTP/1\.1"
)
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?[ \t]*")

_FRAMING: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"te", b"trailer", b"connection", b"upgrade", b"expect", b"keep-alive"}
)
_HARMLESS: Final = frozenset({(b"content-length", b"0"), (b"connection", b"keep-alive")})
_SECRET: Final = frozenset({b"authorization", b"x-consul-token", b"cookie"})
_MEMORY_LINES: Final = 1024

_Field = tuple[bytes, bytes]


class ConsulProtocol(HttpToolsProtocol):
    """One connection. The long way is uvicorn's own; both ways take turns, one request at a time."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._api = cast("ConsulApi", config.app)
        self._parsing = False  # the parser has the beginning of a message
        self._used_at = 0.0

    def data_received(self, data: bytes) -> None:
        if not self._answered_at_once(data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._parsing = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._parsing = False
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that was used meanwhile gets the rest of its time."""
        left = self._used_at + self.timeout_keep_alive - self.loop.time()
        if left > 0 and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _answered_at_once(self, data: bytes) -> bool:
        busy = self.cycle and not self.cycle.response_complete
        if self._parsing or busy or self.flow.write_paused or self.transport.is_closing():
            return False
        plain = read_plain(data)
        if plain is None:
            return False
        reply = self._api.answer_at_once(*plain)
        if reply is None:
            return False
        self._write(reply)
        return True

    def _write(self, reply: Reply) -> None:
        parts = [_status_line(reply.status)]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(reply.body), reply.body)
        self.transport.write(b"".join(parts))
        self.server_state.total_requests += 1
        # Setting a timer anew with every request would cost a tenth of it: the one that runs asks when it is over.
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


def read_plain(data: bytes) -> tuple[str, str, bytes, dict[bytes, bytes]] | None:
    """Method, path, query and fields of a request that is whole and plain in every byte; else `None`."""
    end = data.find(_END)
    if end < 0 or end + 4 != len(data) or end > _PLAIN_BYTES:
        return None
    line, *lines = data[:end].split(b"\r\n")
    target = _read_line(line)
    if target is None:
        return None
    fields: dict[bytes, bytes] = {}
    for text in lines:
        field = _known_fields.get(text) or _read_field(text)
        if field is None or field[0] in fields:
            return None
        fields[field[0]] = field[1]
    return (*target, fields)


@lru_cache(maxsize=8192)
def _read_line(line: bytes) -> tuple[str, str, bytes] | None:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return None
    return match[1].decode("ascii"), match[2].decode("ascii"), match[3] or b""


_known_fields: dict[bytes, _Field] = {}


def _read_field(line: bytes) -> _Field | None:
    match = _FIELD.fullmatch(line)
    if match is None:
        return None
    field = match[1].lower(), match[2] or b""
    if field[0] in _FRAMING and field not in _HARMLESS:
        return None
    if field[0] not in _SECRET:
        if len(_known_fields) >= _MEMORY_LINES:
            _known_fields.clear()
        _known_fields[line] = field
    return field


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())

"""A request as the handlers see it, and what they answer."""

import asyncio
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Send
from toska_common.credentials import Access

from toska_discovery.consul.durations import parse_duration

BODY_MAX_BYTES = 512 * 1024
"""Longest body that is taken; Consul's `kv_max_value_size`."""
BODY_TIMEOUT_S = 10.0
DEFAULT_WAIT_S = 300.0
MAX_WAIT_S = 600.0

CLOSE = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")

Header = tuple[bytes, bytes]


class Refusal(Exception):
    """A request that cannot be served, in Consul's words: a status and a line of text."""

    def __init__(self, status: int, text: str, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class CallerGone(Exception):
    """The caller hung up; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """The query string: for each name its values, in order; a name alone has an empty one."""

    values: dict[str, tuple[str, ...]]

    def has(self, name: str) -> bool:
        """Whether the name is there, with a value or without."""
        return name in self.values

    def first(self, name: str) -> str:
        """The first value; empty if there is none."""
        return self.values[name][0] if name in self.values else ""

    def all(self, name: str) -> tuple[str, ...]:
        """Every value."""
        return self.values.get(name, ())

    def number(self, name: str) -> int | None:
        """The value as an unsigned 64-bit number; `None` if the name is not there.

        Raises:
            Refusal: As Consul refuses anything else.
        """
        if name not in self.values:
            return None
        text = self.first(name)
        if not (text.isascii() and text.isdigit()):
            raise Refusal(500, f'strconv.ParseUint: parsing "{text}": invalid syntax')
        if len(text) > 20 or int(text) >= 2**64:
            raise Refusal(500, f'strconv.ParseUint: parsing "{text}": value out of range')
        return int(text)

    def flag(self, name: str) -> bool:
        """A switch: set by its name alone, or by one of Go's words for true.

        Raises:
            Refusal: As Consul refuses any other value.
        """
        text = self.first(name)
        if text in {"0", "f", "F", "false", "FALSE", "False"}:
            return False
        if text and text not in {"1", "t", "T", "true", "TRUE", "True"}:
            raise Refusal(400, f"Invalid value for ?{name}")
        return name in self.values

    @property
    def index(self) -> int:
        """What the caller has seen already; 0 if it does not want to wait.

        Raises:
            Refusal: It is not a number.
        """
        text = self.first("index")
        if not text:
            return 0
        if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) >= 2**64:
            raise Refusal(400, "Invalid index")
        return int(text)

    @property
    def wait_s(self) -> float:
        """How long the caller is ready to wait, within Consul's bounds and before its jitter.

        Raises:
            Refusal: It is not a duration.
        """
        text = self.first("wait")
        if not text:
            return DEFAULT_WAIT_S
        try:
            wait = parse_duration(text)
        except ValueError as error:
            raise Refusal(400, "Invalid wait time") from error
        return min(wait, MAX_WAIT_S) if wait > 0 else DEFAULT_WAIT_S


@lru_cache(maxsize=1024)
def parse_query(raw: bytes) -> Query:
    """Read a query string; the same few come again and again."""
    values: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        values[name] = (*values.get(name, ()), value)
    return Query(values)


@dataclass(slots=True)
class ConsulRequest:
    """One request.

    Attributes:
        name: What follows the endpoint in the path: a service's name, an id, a key.
        access: What the caller's token allows; `None` without one that is known.
    """

    method: str
    name: str
    query: Query
    headers: dict[bytes, bytes]
    receive: Receive
    access: Access | None = None

    async def body(self, limit: int = BODY_MAX_BYTES) -> bytes:
        """The whole body, of up to `limit` bytes.

        Raises:
            Refusal: It is too long, or too slow.
            CallerGone: The caller hung up half-way.
        """
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await self._read_body(limit)
        except TimeoutError as error:
            raise Refusal(408, "Request body did not arrive in time", (CLOSE,)) from error

    async def _discard_body(self) -> None:
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            more = message.get("more_body", False)

    async def _read_body(self, limit: int) -> bytes:
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            if int(announced) <= 2 * limit:
                await self._discard_body()  # closing on a caller that still sends would cost it the answer
            raise _too_large(int(announced), limit)
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(size, limit)
            chunks.append(chunk)
            more = message.get("more_body", False)
        return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, encoded."""

    body: bytes = b""
    status: int = 200
    headers: tuple[Header, ...] = field(default=())

    async def send(self, send: Send) -> None:
        """Write it out."""
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body})


def _too_large(size: int, limit: int) -> Refusal:
    # What was not read of the body would be taken for the next request.
    text = f"Request body({size} bytes) too large, max size: {limit} bytes."
    return Refusal(413, text, (CLOSE,))


def encode(value: Any) -> bytes:
    """JSON, as short as it gets."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_reply(value: Any, *headers: Header, status: int = 200) -> Reply:
    """A value as JSON."""
    return Reply(encode(value), status, (_JSON, *headers))


def encoded_reply(body: bytes, *headers: Header) -> Reply:
    """JSON that is encoded already."""
    return Reply(body, headers=(_JSON, *headers))


def text_reply(status: int, text: str, *headers: Header) -> Reply:
    """A line of text: how Consul tells errors."""
    return Reply(text.encode(errors="replace"), status, (_TEXT, *headers))


def pretty(reply: Reply) -> Reply:
    """The same answer for a person's eyes (`?pretty`)."""
    if _JSON not in reply.headers:
        return reply
    return Reply((json.dumps(json.loads(reply.body), indent=4) + "\n").encode(), reply.status, reply.headers)

"""A route with a cache before an upstream that says how long its answers live."""

import asyncio
from collections.abc import Callable
from typing import Any

from toska_tests.gateways import Gateway, single
from toska_tests.raw_http import Conversation, Message, Script, ask, get

PLAIN = get()
FRESH = "cache-control: max-age=60"
STALE = ("cache-control: max-age=60", "age: 70", 'etag: "v1"')
"""As another cache would pass on what it has had for a while."""


def cached(port: int, policies: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """A document with one route, with these settings of its cache, and with other policies."""
    return single(port, policies={"cache": settings, **(policies or {})})


def reply(*fields: str, body: bytes = b"hello", status: str = "200 OK", length: int | None = None) -> bytes:
    """A response; `length` is what it says of its body, if that is not the truth."""
    size = len(body) if length is None else length
    lines = "".join(f"{field}\r\n" for field in (*fields, f"content-length: {size}"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def unframed(*fields: str) -> bytes:
    """The head of a fresh response that says what `fields` do of its body's length."""
    return "\r\n".join(["HTTP/1.1 200 OK", FRESH, *fields, "", ""]).encode()


def by_method(say: Callable[[Message], bytes]) -> Script:
    """A script that answers each request by what it says."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.send(say(await conversation.request()))

    return script


def in_two_parts(go_on: asyncio.Event) -> Script:
    """A script that says `hello`, and `world` as the rest of it when it may go on."""

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(unframed("content-length: 10") + b"hello")
        await go_on.wait()
        await conversation.send(b"world")
        await conversation.until_closed()

    return script


def numbered(*fields: str, status: str = "200 OK") -> Script:
    """A script that answers with a running number, over all connections, and these fields."""
    given = 0

    async def script(conversation: Conversation) -> None:
        nonlocal given
        while True:
            message = await conversation.request()
            given += 1
            number = str(given).encode()
            body = number if message.method != "HEAD" else b""
            await conversation.send(reply(*fields, body=body, status=status, length=len(number)))

    return script


async def bodies(gateway: Gateway, *requests: bytes) -> list[bytes]:
    """What comes of these requests, one after the other."""
    return [(await ask(gateway.address, message)).body for message in requests]

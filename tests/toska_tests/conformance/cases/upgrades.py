"""Switching protocols."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask, Tunnel
from toska_tests.raw_http import Conversation, get, response

_ASKING = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


async def echo(conversation: Conversation) -> None:
    """Switch, and send back what comes."""
    await conversation.request()
    await conversation.send(_SWITCHING)
    while data := await conversation.some():
        await conversation.send(data)


CASES: Sequence[Case] = (
    Case(
        "a websocket is let through where the route allows it",
        [Tunnel(get("/chat", *_ASKING), (b"hello", b"\x00\xff" * 20_000, b"bye"))],
        policies(upgrade=["websocket"]),
        upstreams={"a": echo},
    ),
    Case(
        "where the route does not allow it, a switch is not asked for",
        [Ask(get("/", *_ASKING), by="a", sees={"upgrade": None, "connection": None})],
    ),
    Case(
        "no other protocol is switched to",
        [
            Ask(get("/", "Connection: Upgrade", f"Upgrade: {other}"), by="a", sees={"upgrade": None})
            for other in ("h2c", "TLS/1.0", "websocket, h2c")
        ],
        policies(upgrade=["websocket"]),
    ),
    Case(
        "an upstream that does not switch answers as ever",
        [Ask(get("/", *_ASKING), 426, by="a"), Ask(get("/", *_ASKING), 426, by="a")],
        policies(upgrade=["websocket"]),
        upstreams={"a": response(426, body=b"no")},
    ),
)

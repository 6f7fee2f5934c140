"""The head of a response as its client gets it: how long the body is, and what becomes of the connection."""

from typing import TYPE_CHECKING

from toska_gateway.worker.http1 import CHUNKED, CRLF, ResponseHead

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange


def complete_head(exchange: "Exchange", head: ResponseHead) -> None:
    """Append what the upstream's framing has to become here; the exchange learns how the body is to be written."""
    parts, special, asked = head.parts, head.special, exchange.head
    length = head.body_length
    if length is None or length == CHUNKED:
        if asked.http11:
            exchange.rechunk = True
            parts.append(b"transfer-encoding: chunked\r\n")
        else:
            exchange.close_after = True
    elif b"content-length" in special and head.status != 204:
        parts.append(b"content-length: " + special[b"content-length"][0] + CRLF)
    elif b"transfer-encoding" in special and exchange.is_head and asked.http11:
        parts.append(b"transfer-encoding: chunked\r\n")
    if not exchange.request_done:
        exchange.close_after = True  # the rest of the body cannot be told from the next request
    via = exchange.plane.via
    endings = via.of_http11 if head.http11 else via.of_http10
    if exchange.close_after:
        parts.append(endings.close)
    elif asked.http11:
        parts.append(endings.persistent)
    else:
        parts.append(endings.keep_alive)

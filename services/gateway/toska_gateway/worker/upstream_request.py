"""The request as its upstream gets it: what was asked, what the route makes of it, and what the gateway has to say."""

from random import random
from typing import TYPE_CHECKING

from toska_gateway.worker.http1 import CHUNKED, CRLF, TOKEN_PREFIX, RequestHead, encode_path, field_name, field_value
from toska_gateway.worker.spans import carry_on
from toska_gateway.worker.tracing import new_trace_ids

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange


def build_request(exchange: "Exchange") -> bytes:
    """The head as it is sent, whichever endpoint gets it.

    Raises:
        BadMessage: The request has been here before, status 508.
    """
    head, route = exchange.head, exchange.route
    if head.holds_token:
        _sort_out_tokens(head, mesh_owned=exchange.cluster.mesh_owned)
    parts = head.parts
    trace = exchange.trace_lines or begin_trace(exchange)
    path, host, prefix = head.path, head.host, b""
    if route.relocates:
        path, host, prefix = _relocate(exchange)
    if not head.plain or path is not head.path:
        path = encode_path(path)
    parts[0] = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n" % (head.method, path, head.query, host)
    if route.request_edits is not None:
        route.request_edits.apply(parts, exchange)
    forwarding = exchange.down.forwarding
    request_id = exchange.request_id() if forwarding.trusted else exchange.trace_id
    parts.append(b"%bx-request-id: %b\r\n%b" % (forwarding.lines(head), request_id, trace))
    if prefix or forwarding.trusted:
        parts += forwarding.prefix(head, prefix)
    if head.body_length > 0:
        parts.append(b"content-length: %d\r\n" % head.body_length)
    elif head.body_length == CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    elif b"content-length" in head.special:
        parts.append(b"content-length: 0\r\n")
    if head.expect:
        parts.append(b"expect: 100-continue\r\n")
    if exchange.upgrading:
        parts.append(b"connection: upgrade\r\nupgrade: websocket\r\n")
    parts.append(CRLF)
    return b"".join(parts)


def begin_trace(exchange: "Exchange") -> bytes:
    """Go on with the caller's trace, or begin one; returns the field lines for the next hop."""
    ids = new_trace_ids()
    tracer = exchange.plane.tracer
    if b"traceparent" in exchange.head.special:
        lines = carry_on(exchange, ids)
    elif tracer is not None and random() < tracer.share:  # noqa: S311 - a sample, no secret
        lines = carry_on(exchange, ids, chosen=True)
    else:
        exchange.trace_id = trace_id = ids[:32]
        lines = b"traceparent: 00-%b-%b-00\r\n" % (trace_id, ids[32:])
    exchange.trace_lines = lines
    return lines


def _relocate(exchange: "Exchange") -> tuple[bytes, bytes, bytes]:
    """Path and host that the upstream is asked for, and the prefix that it is told was taken off."""
    route, passage, path = exchange.route, exchange.passage, exchange.head.path
    if passage is not None and passage.path:
        path = passage.path
    prefix = path[: route.strip]
    if prefix:
        path = path[route.strip :] or b"/"
    elif route.rewrite is not None:
        path = route.rewrite.apply(path)
    return path, route.upstream_host or exchange.head.host, prefix


def _sort_out_tokens(head: RequestHead, *, mesh_owned: bool) -> None:
    """The mesh's own tokens and cookies reach its own services, and never a user's."""
    if mesh_owned:
        head.parts += [b"x-consul-token: " + token + CRLF for token in head.special.get(b"x-consul-token", ())]
        return
    kept = head.parts[:1]
    for part in head.parts[1:]:
        if TOKEN_PREFIX not in part:
            kept.append(part)
        elif field_name(part) == b"cookie":
            cookies = [cookie for cookie in field_value(part).split(b";") if TOKEN_PREFIX not in cookie]
            if cookies:
                kept.append(b"cookie: " + b";".join(cookies).strip() + CRLF)
    head.parts = kept
    if TOKEN_PREFIX in head.query:
        pairs = [pair for pair in head.query[1:].split(b"&") if TOKEN_PREFIX not in pair]
        head.query = b"?" + b"&".join(pairs) if pairs else b""

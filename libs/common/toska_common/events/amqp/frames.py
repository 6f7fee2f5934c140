"""Publishing as bytes: the three frames of AMQP 0-9-1's basic.publish, made at once. Pure.

Source: AMQP 0-9-1 §2.3.5 (frames), §4.2.6 (content), and the method's and properties' order in its XML.
"""

import struct
from functools import lru_cache

from toska_common.events.amqp.envelope import Envelope

_HEAD = struct.Struct(">BHI")
_LONG = struct.Struct(">I")
_PROPERTIES = struct.Struct(">HHQH")
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH = 60, 40
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _PRIORITY, _EXPIRATION = 0x8000, 0x2000, 0x1000, 0x0800, 0x0100
_TRANSIENT, _PERSISTENT = 1, 2
FRAME_OVERHEAD = 8


@lru_cache(4096)
def _publish(channel: int, exchange: str, routing_key: str) -> bytes:
    names = b"".join(bytes((len(raw),)) + raw for raw in (exchange.encode(), routing_key.encode()))
    method = struct.pack(">HHH", _BASIC, _PUBLISH, 0) + names + b"\0"
    return _HEAD.pack(_METHOD, channel, len(method)) + method + _END


def publish_frames(
    channel: int,
    exchange: str,
    routing_key: str,
    envelope: Envelope,
    *,
    largest: int,
    persistent: bool = True,
    priority: int = 1,
    expiration_ms: int | None = None,
) -> bytes:
    """The frames that publish one message.

    Args:
        largest: Bytes of the longest frame that the broker takes.
        priority: For exclusive queues; those of groups have an exchange for each.
        expiration_ms: After so long RabbitMQ may forget it.
    """
    table, kind, body = envelope
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _PRIORITY
    rest = b""
    if expiration_ms is not None:
        text = b"%d" % expiration_ms
        flags |= _EXPIRATION
        rest = bytes((len(text),)) + text
    mode = _PERSISTENT if persistent else _TRANSIENT
    properties = b"".join((bytes((len(kind),)), kind, _LONG.pack(len(table)), table, bytes((mode, priority)), rest))
    header = _PROPERTIES.pack(_BASIC, 0, len(body), flags) + properties
    parts = [_publish(channel, exchange, routing_key), _HEAD.pack(_HEADER, channel, len(header)), header, _END]
    most = largest - FRAME_OVERHEAD
    if 0 < len(body) <= most:
        parts += _HEAD.pack(_BODY, channel, len(body)), body, _END
    else:
        for start in range(0, len(body), most):
            piece = body[start : start + most]
            parts += _HEAD.pack(_BODY, channel, len(piece)), piece, _END
    return b"".join(parts)

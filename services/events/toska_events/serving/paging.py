"""Reading the log back, a page at a time: a reader that stops asking costs nothing."""

import struct

from toska_common.events.embedded.records import pack_stored
from toska_common.events.embedded.wording import ReadRequest
from toska_common.events.topics import matches
from toska_common.events.transport import Start

from toska_events.brokering.broker import Broker
from toska_events.brokering.positions import find_position

PAGE_BYTES = 1 << 20
PAGE_EVENTS = 500
PAGE_HEAD = struct.Struct("<Bqq")


async def read_page(broker: Broker, request: ReadRequest) -> list[bytes]:
    """A page, in pieces to be joined: whether it is the last, what to ask for next, and the events."""
    upto = request.upto if request.upto is not None else broker.head
    after = request.after if request.after is not None else await _beginning(broker, request.start)
    topics = [
        topic.id
        for topic in broker.file.topics.all()
        if any(matches(pattern, topic.name) for pattern in request.patterns)
    ]
    found = await broker.reader.call(
        lambda reading: reading.after(
            after,
            upto,
            topics,
            priority=None,
            limit=min(request.limit or PAGE_EVENTS, PAGE_EVENTS),
            max_bytes=PAGE_BYTES,
        )
    )
    pieces = [PAGE_HEAD.pack(found.seen >= upto, found.seen, upto)]
    for row in found.rows:
        pieces += pack_stored(row.offset, row.at, row.head, row.data)
    return pieces


async def _beginning(broker: Broker, start: Start) -> int:
    position = await find_position(broker, start)
    return broker.head if position is None else position

"""Where in the log a start is."""

from toska_common.events.embedded.records import microseconds
from toska_common.events.transport import Start

from toska_events.brokering.broker import Broker


async def find_position(broker: Broker, start: Start) -> int | None:
    """The offset after which to begin; `None` for from now on."""
    if start.beginning:
        return 0
    if start.offset is not None:
        return max(start.offset - 1, 0)
    if start.time is None:
        return None
    moment, head = microseconds(start.time), broker.head
    return await broker.reader.call(lambda reading: reading.first_since(moment, head)) - 1

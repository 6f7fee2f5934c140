"""Where a reader goes on whose stream broke: the ids of its messages, and what they mean in `Last-Event-ID`. Pure."""

from datetime import UTC, datetime

from toska_common.errors import InvalidInput
from toska_common.events.transport import Start

MAX_OFFSET = 2**63 - 1
OVERLAP_S = 60.0
"""How much of the past comes again to a reader that goes on at a moment: clocks of publishers differ from ours."""


def moment_id(now: datetime) -> str:
    """The id of a message after which a reader goes on by its time."""
    return f"~{int(now.timestamp() * 1000)}"


def read_last_event_id(text: str) -> Start | None:
    """Where the reader of a `Last-Event-ID` goes on; `None` for none.

    Raises:
        InvalidInput: It is none of ours.
    """
    if not text:
        return None
    number = text.removeprefix("~")
    if not number.isascii() or not number.isdigit() or int(number) >= MAX_OFFSET:
        raise _no_id()
    if number == text:
        return Start(offset=int(number) + 1)
    try:
        return Start(time=datetime.fromtimestamp(max(0.0, int(number) / 1000 - OVERLAP_S), UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise _no_id() from error


def _no_id() -> InvalidInput:
    reason = "is the id of an event of such a stream"
    return InvalidInput(f"Last-Event-ID {reason}", problems=[{"field": "header.last-event-id", "reason": reason}])

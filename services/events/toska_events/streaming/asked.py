"""What somebody asked to be told of, as a subscription."""

from datetime import UTC, datetime, timedelta

from toska_common.contracts.eventing import StreamQuery
from toska_common.credentials import Access
from toska_common.errors import InvalidInput, Unauthenticated
from toska_common.events.topics import check_group, check_pattern
from toska_common.events.transport import Start, Subscription

PREFETCH = 64
MAX_OFFSET = 2**63 - 1
OVERLAP = timedelta(seconds=60)
"""How much of the past comes again to a reader that goes on at a moment: clocks of publishers differ from ours."""


def subscription_of(
    query: StreamQuery, access: Access | None, *, resumed: Start | None = None, prefetch: int = PREFETCH
) -> Subscription:
    """The subscription to open.

    Args:
        access: Of who asks. Sharing a group's work takes it from others, so that is no mere read.
        resumed: Where a reader goes on that was here before, by its `Last-Event-ID`; a group knows that by itself.

    Raises:
        InvalidInput: A pattern or the group is none.
        Unauthenticated: A group, and no token.
    """
    if query.group is not None and access is None:
        raise Unauthenticated("sharing a group's work needs a token: send Authorization: Bearer <token>", needs="join")
    if query.group is None and resumed is not None:
        start = resumed
    else:
        start = Start(beginning=query.beginning, offset=query.offset, time=query.since)
    return Subscription(
        tuple(check_pattern(pattern, field="query.topic") for pattern in query.topic),
        group=None if query.group is None else check_group(query.group, field="query.group"),
        where={name: value for name, _, value in (pair.partition("=") for pair in query.where)},
        start=start,
        prefetch=prefetch,
    )


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
        return Start(time=datetime.fromtimestamp(int(number) / 1000, UTC) - OVERLAP)
    except (ValueError, OverflowError, OSError) as error:
        raise _no_id() from error


def _no_id() -> InvalidInput:
    reason = "is the id of an event of such a stream"
    return InvalidInput(f"Last-Event-ID {reason}", problems=[{"field": "header.last-event-id", "reason": reason}])

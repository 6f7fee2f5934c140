"""What somebody asked to be told of, as a subscription."""

from toska_common.contracts.eventing import StreamQuery
from toska_common.credentials import Access
from toska_common.errors import InvalidInput, Unauthenticated
from toska_common.events.topics import check_group, check_pattern
from toska_common.events.transport import Start, Subscription

PREFETCH = 64
MAX_OFFSET = 2**63 - 1


def subscription_of(
    query: StreamQuery, access: Access | None, *, resume_after: int | None = None, prefetch: int = PREFETCH
) -> Subscription:
    """The subscription to open.

    Args:
        access: Of who asks. Sharing a group's work takes it from others, so that is no mere read.
        resume_after: The last offset that a reader without a group has had.

    Raises:
        InvalidInput: A pattern or the group is none.
        Unauthenticated: A group, and no token.
    """
    if query.group is not None and access is None:
        raise Unauthenticated("sharing a group's work needs a token: send Authorization: Bearer <token>", needs="join")
    if query.group is None and resume_after is not None:
        start = Start(offset=resume_after + 1)
    else:
        start = Start(beginning=query.beginning, offset=query.offset, time=query.since)
    return Subscription(
        tuple(check_pattern(pattern, field="query.topic") for pattern in query.topic),
        group=None if query.group is None else check_group(query.group, field="query.group"),
        where={name: value for name, _, value in (pair.partition("=") for pair in query.where)},
        start=start,
        prefetch=prefetch,
    )


def read_last_event_id(text: str) -> int | None:
    """The offset in a `Last-Event-ID`; `None` for none.

    Raises:
        InvalidInput: It is none of ours.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) >= MAX_OFFSET:
        reason = "is the id of an event of such a stream"
        raise InvalidInput(f"Last-Event-ID {reason}", problems=[{"field": "header.last-event-id", "reason": reason}])
    return int(text)

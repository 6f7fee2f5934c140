"""What somebody asked to be told of, as a subscription."""

from toska_common.contracts.eventing import StreamQuery
from toska_common.credentials import Access
from toska_common.errors import Unauthenticated
from toska_common.events.topics import check_group, check_pattern
from toska_common.events.transport import Start, Subscription

PREFETCH = 64


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
        sequential=query.group is None,
        prefetch=prefetch,
    )

"""From what a client asks for to a live subscription."""

from toska_common.errors import Conflict
from toska_common.events.embedded.wording import SubscribeRequest

from toska_events.brokering.broker import Broker
from toska_events.brokering.positions import find_position
from toska_events.groups.group import Group
from toska_events.groups.member import Member
from toska_events.log.rows import GroupRow


async def join(broker: Broker, request: SubscribeRequest, member: Member) -> Group:
    """Make `member` part of the group that it asks for, or of one of its own.

    Raises:
        Conflict: The group has members that want order where this one does not, or the other way round.
    """
    known = broker.groups.get(request.group or "")
    if known is not None and known.members and known.ordered != request.ordered:
        raise Conflict(
            f"the group {known.name} has members that want order {'' if known.ordered else 'not '}kept",
            group=known.name,
        )
    ordered = request.ordered or request.sequential  # one cursor for all priorities
    spec = GroupRow(0, request.group or "", request.patterns, ordered, request.attempts, (0, 0, 0))
    spec.sequential = request.sequential
    if request.resume is not None and not spec.name:
        return await broker.resume(spec, member, request.resume)
    position = None if known is not None else await find_position(broker, request.start)
    return await broker.join(spec, member, None if position is None else lambda: position)

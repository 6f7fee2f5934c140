"""`/api/v1/events/groups`: who shares which work, how far they are, and moving them."""

from fastapi import APIRouter
from toska_common.contracts.eventing import GroupEntry, StartDraft
from toska_common.events.errors import UnknownGroup
from toska_common.events.topics import check_group
from toska_common.events.transport import GroupState, Start

from toska_events.access import PREFIX
from toska_events.parts import Parts


def group_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=f"{PREFIX}/groups", tags=["events"])

    @router.get("")
    async def list_groups() -> list[GroupEntry]:
        """All groups by name, with their lag."""
        states = await parts.get_transport().administration.groups()
        return [_entry(state) for state in sorted(states, key=lambda item: item.name)]

    @router.get("/{group}", responses={404: {"description": "There is none"}})
    async def get_group(group: str) -> GroupEntry:
        """One group."""
        return await _entry_of(parts, check_group(group))

    @router.delete(
        "/{group}",
        status_code=204,
        responses={404: {"description": "There is none"}, 409: {"description": "It has members"}},
    )
    async def delete_group(group: str) -> None:
        """Forget a group, and what it has yet to be given."""
        await parts.get_transport().administration.delete_group(check_group(group))

    @router.post(
        "/{group}/seek",
        responses={404: {"description": "There is none"}, 409: {"description": "It has members: stop them first"}},
    )
    async def seek(group: str, draft: StartDraft) -> GroupEntry:
        """Give a group everything from here on, again or not: a replay into a live group."""
        start = Start(beginning=draft.beginning, offset=draft.offset, time=draft.time)
        await parts.get_transport().administration.seek(check_group(group), start)
        return await _entry_of(parts, group)

    return router


async def _entry_of(parts: Parts, group: str) -> GroupEntry:
    for state in await parts.get_transport().administration.groups():
        if state.name == group:
            return _entry(state)
    raise UnknownGroup(f"no group is called {group}", group=group)


def _entry(state: GroupState) -> GroupEntry:
    return GroupEntry(
        name=state.name,
        topics=state.patterns,
        members=state.members,
        lag=state.lag,
        unsettled=state.unsettled,
        delayed=state.delayed,
        dead=state.dead,
        delivered=state.delivered,
        acked=state.acked,
        oldest_at=state.oldest_at,
    )

"""`/api/v1/events/dead-letters`: what groups could not handle: looked at, driven again, or thrown away."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from toska_common.contracts.eventing import Count, DeadLetterChoice, DeadLetterEntry
from toska_common.events import cloudevents
from toska_common.events.transport import DeadLetter

from toska_events.access import PREFIX
from toska_events.parts import Parts

_PAGE = 500


def dead_letter_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=f"{PREFIX}/dead-letters", tags=["events"])

    @router.get("")
    async def list_dead_letters(
        group: Annotated[str | None, Query(description="Of this group alone")] = None,
        after: Annotated[str, Query(description="The last id of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[DeadLetterEntry]:
        """Dead letters with the reason, the oldest first; pages of large ones are shorter, an empty one is the last."""
        found = await parts.get_transport().administration.dead_letters(group, limit=limit, after=after)
        return [_entry(letter) for letter in found]

    @router.get("/{letter_id}", responses={404: {"description": "It was driven again or purged"}})
    async def get_dead_letter(letter_id: str) -> DeadLetterEntry:
        """One of them."""
        return _entry(await parts.get_transport().administration.dead_letter(letter_id))

    @router.post("/redrive")
    async def redrive(choice: DeadLetterChoice) -> Count:
        """Give them to their groups again, with fresh attempts."""
        administration = parts.get_transport().administration
        return Count(count=await administration.redrive(await _chosen(parts, choice)))

    @router.post("/purge")
    async def purge(choice: DeadLetterChoice) -> Count:
        """Forget them."""
        administration = parts.get_transport().administration
        return Count(count=await administration.purge(await _chosen(parts, choice)))

    return router


async def _chosen(parts: Parts, choice: DeadLetterChoice) -> Sequence[str]:
    if choice.group is None:
        return choice.ids
    found: list[str] = []
    administration = parts.get_transport().administration
    while page := await administration.dead_letters(choice.group, limit=_PAGE, after=found[-1] if found else ""):
        found += [letter.id for letter in page]
    return found


def _entry(letter: DeadLetter) -> DeadLetterEntry:
    return DeadLetterEntry(
        id=letter.id,
        group=letter.group,
        reason=letter.reason,
        attempts=letter.attempts,
        died_at=letter.died_at,
        event=cloudevents.to_document(letter.event),
    )

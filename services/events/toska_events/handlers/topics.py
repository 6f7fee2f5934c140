"""`/api/v1/events/topics`: what there is, how it is kept, and what is kept of it."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from toska_common.contracts.eventing import Moment, Offset, StoredEntry, TopicDraft, TopicEntry
from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.errors import UnknownTopic
from toska_common.events.topics import check_pattern, check_topic
from toska_common.events.transport import BEGINNING, Start, TopicSettings, TopicState

from toska_events.access import PREFIX
from toska_events.parts import Parts

MAX_READ = 1000
_READ_BYTES = 8 << 20
"""Of events in one answer, if they are several."""


def topic_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=PREFIX, tags=["events"])
    _add_topics(router, parts)
    _add_reading(router, parts)
    return router


def _add_topics(router: APIRouter, parts: Parts) -> None:
    @router.get("/topics")
    async def list_topics() -> list[TopicEntry]:
        """All topics that were created or published to, by name."""
        return [_entry(state) for state in sorted(await _topics(parts), key=lambda item: item.settings.name)]

    @router.get("/topics/{topic}", responses={404: {"description": "Nobody created it or published to it"}})
    async def get_topic(topic: str) -> TopicEntry:
        """One topic: how it is kept, and what is."""
        return await _entry_of(parts, topic)

    @router.put("/topics/{topic}")
    async def put_topic(topic: str, draft: TopicDraft) -> TopicEntry:
        """Create a topic, or keep it otherwise. One that is only published to is kept by the defaults."""
        settings = TopicSettings(
            check_topic(topic),
            max_age=draft.max_age,
            max_bytes=draft.max_bytes,
            time_to_live=draft.time_to_live,
            replayable=draft.replayable,
            description=draft.description,
        )
        await parts.get_transport().administration.put_topic(settings)
        return await _entry_of(parts, topic)

    @router.delete("/topics/{topic}", status_code=204, responses={404: {"description": "There is none"}})
    async def delete_topic(topic: str) -> None:
        """Forget a topic, and every event of it, also those that groups have yet to get."""
        await parts.get_transport().administration.delete_topic(check_topic(topic))


def _add_reading(router: APIRouter, parts: Parts) -> None:
    @router.get("/log")
    async def read(
        topic: Annotated[list[str], Query(description="Patterns: orders.# or mesh.*.registered")],
        offset: Annotated[Offset | None, Query(description="From this offset on")] = None,
        since: Annotated[Moment | None, Query(description="From what was stored at this moment or later")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_READ)] = 100,
    ) -> list[StoredEntry]:
        """Read again what is kept, from the oldest or where it is said; the next page begins after the last offset.

        There are fewer than `limit` where they are large: an empty page is the last.
        """
        if offset is not None and since is not None:
            reason = "say offset or since, and not both"
            raise InvalidInput(reason, problems=[{"field": "query.since", "reason": reason}])
        start = Start(offset=offset, time=since) if offset is not None or since is not None else BEGINNING
        patterns = [check_pattern(pattern, field="query.topic") for pattern in topic]
        return await _read(parts, patterns, start, limit)


async def _read(parts: Parts, patterns: Sequence[str], start: Start, limit: int) -> list[StoredEntry]:
    found: list[StoredEntry] = []
    size = 0
    async with aclosing(parts.get_transport().read(patterns, start, limit=limit)) as reading:
        async for stored in reading:
            document = cloudevents.to_document(stored.event)
            found.append(StoredEntry(offset=stored.offset, stored_at=stored.stored_at, event=document))
            size += len(stored.event.data)
            if size >= _READ_BYTES:
                break
    return found


async def _topics(parts: Parts) -> list[TopicState]:
    return await parts.get_transport().administration.topics()


async def _entry_of(parts: Parts, topic: str) -> TopicEntry:
    for state in await _topics(parts):
        if state.settings.name == topic:
            return _entry(state)
    raise UnknownTopic(f"nobody created {topic[:200]} or published to it", topic=topic[:200])


def _entry(state: TopicState) -> TopicEntry:
    settings = state.settings
    return TopicEntry(
        name=settings.name,
        max_age_seconds=None if settings.max_age is None else settings.max_age.total_seconds(),
        max_bytes=settings.max_bytes,
        time_to_live_seconds=None if settings.time_to_live is None else settings.time_to_live.total_seconds(),
        replayable=settings.replayable,
        description=settings.description,
        events=state.events,
        bytes=state.bytes,
        published=state.published,
        first_offset=state.first_offset,
        last_offset=state.last_offset,
        last_at=state.last_at,
    )

"""What operators ask of the log: topics, groups and dead letters."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
from toska_common.errors import Conflict, InvalidInput
from toska_common.events.embedded.records import decode_event, moment
from toska_common.events.embedded.wording import (
    group_json,
    letter_json,
    read_settings,
    read_start,
    settings_json,
    topic_json,
)
from toska_common.events.errors import UnknownDeadLetter, UnknownGroup, UnknownTopic
from toska_common.events.topics import check_topic
from toska_common.events.transport import DeadLetter, GroupState, Start, TopicSettings, TopicState

from toska_events.brokering.broker import Broker
from toska_events.brokering.positions import find_position
from toska_events.groups.group import Group
from toska_events.log.rows import Letter, Topic

_DIGITS = 16
"""Of a dead letter's id, so that ids sort as text in the order in which they were given."""
_PAGE_BYTES = 4 << 20
"""Of dead letters that are told at once, which base64 makes a third larger: a frame and an answer have bounds."""


class Administrator:
    """A transport's administration, at the log itself."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Do what a CALL frame asks.

        Raises:
            MeshError: It cannot be done.
            KeyError, TypeError, ValueError: The request is none.
        """
        match content["do"]:
            case "topics":
                return {"topics": [topic_json(state) for state in await self.topics()]}
            case "put_topic":
                await self.put_topic(read_settings(content["settings"]))
            case "delete_topic":
                await self.delete_topic(str(content["name"]))
            case "groups":
                return {"groups": [group_json(state) for state in await self.groups()]}
            case "delete_group":
                await self.delete_group(str(content["name"]))
            case "seek":
                await self.seek(str(content["group"]), read_start(content["start"]))
            case "dead_letters":
                found = await self.dead_letters(
                    content.get("group"), limit=int(content["limit"]), after=str(content["after"])
                )
                return {"letters": [letter_json(letter) for letter in found]}
            case "dead_letter":
                return {"letter": letter_json(await self.dead_letter(str(content["id"])))}
            case "redrive":
                return {"count": await self.redrive([str(id_) for id_ in content["ids"]])}
            case "purge":
                return {"count": await self.purge([str(id_) for id_ in content["ids"]])}
            case other:
                raise InvalidInput(f"the log knows no call {str(other)[:50]!r}")
        return {}

    async def topics(self) -> list[TopicState]:
        """Every topic, by name."""
        known = sorted(self._broker.file.topics.all(), key=lambda topic: topic.name)
        bounds = await self._broker.reader.call(lambda reading: [reading.bounds(topic.id) for topic in known])
        return [_topic_state(topic, *ends) for topic, ends in zip(known, bounds, strict=True)]

    async def put_topic(self, settings: TopicSettings) -> None:
        """Create a topic, or set it anew."""
        check_topic(settings.name, field="name")
        to_live = 0 if settings.time_to_live is None else settings.time_to_live // timedelta(microseconds=1)
        text = json.dumps(settings_json(settings))
        await self._broker.writer.call(lambda file: file.put_topic(settings.name, text, to_live))

    async def delete_topic(self, name: str) -> None:
        """Forget a topic and its events.

        Raises:
            UnknownTopic: There is none.
        """
        topic = self._broker.file.topics.find(name)
        if topic is None:
            raise UnknownTopic(f"there is no topic {name}", topic=name)
        await self._broker.saver.flush()
        offsets = set(await self._broker.writer.call(lambda file: file.drop_topic(topic)))
        for group in self._broker.all_groups():
            group.drop_topic(topic.id, offsets)
            self._broker.touch(group)

    async def groups(self) -> list[GroupState]:
        """Every group with a name, by it."""
        await self._broker.saver.flush()
        dead = await self._broker.reader.call(lambda reading: reading.dead_counts())
        held = await self._broker.reader.call(lambda reading: reading.held_counts())
        found = sorted(self._broker.groups.values(), key=lambda group: group.name)
        return [await self._group_state(group, dead.get(group.id, 0), held.get(group.id, 0)) for group in found]

    async def delete_group(self, name: str) -> None:
        """Forget a group.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        group = self._idle_group(name)
        dropped = self._broker.dropping[name] = asyncio.Event()
        try:
            with anyio.CancelScope(shield=True):  # what is forgotten here must not stay in the file
                self._broker.forget(group)
                await self._broker.saver.flush()
                await self._broker.writer.call(lambda file: file.drop_group(group.id))
        finally:
            del self._broker.dropping[name]
            dropped.set()

    async def seek(self, name: str, start: Start) -> None:
        """Move a group.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        position = await find_position(self._broker, start)
        group = self._idle_group(name)
        group.seek(self._broker.head if position is None else min(position, self._broker.head))
        await self._broker.saver.flush()
        await self._broker.writer.call(lambda file: file.clear_held(group.id))
        self._broker.saver.mark(group)
        await self._broker.saver.flush()

    async def dead_letters(self, group: str | None = None, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """By id, those after `after`; fewer than `limit` where they are large."""
        await self._broker.saver.flush()
        last = _number(after) if after else 0
        limit = min(max(limit, 0), 1000)
        found = await self._broker.reader.call(lambda reading: reading.letters(group, last, limit, _PAGE_BYTES))
        return [_dead_letter(letter) for letter in found]

    async def dead_letter(self, id_: str) -> DeadLetter:
        """One of them.

        Raises:
            UnknownDeadLetter: There is none.
        """
        await self._broker.saver.flush()
        number = _number(id_)
        found = await self._broker.reader.call(lambda reading: reading.letters(None, number - 1, 1, _PAGE_BYTES))
        if not found or found[0].id != number:
            raise UnknownDeadLetter(f"there is no dead letter {id_}", id=id_)
        return _dead_letter(found[0])

    async def redrive(self, ids: Sequence[str]) -> int:
        """Give them to their groups again."""
        await self._broker.saver.flush()
        numbers, now = [_number(id_) for id_ in ids], self._broker.now()
        held = await self._broker.writer.call(lambda file: file.redrive(numbers, now))
        by_id = {group.id: group for group in self._broker.groups.values()}
        for item in held:
            group = by_id.get(item.group)
            if group is not None:
                group.hold_stored([item], {})
                self._broker.touch(group)
        return len(held)

    async def purge(self, ids: Sequence[str]) -> int:
        """Forget them."""
        await self._broker.saver.flush()
        numbers = [_number(id_) for id_ in ids]
        return await self._broker.writer.call(lambda file: file.purge(numbers))

    def _idle_group(self, name: str) -> Group:
        group = self._broker.groups.get(name)
        if group is None:
            raise UnknownGroup(f"there is no group {name}", group=name)
        if group.members:
            raise Conflict(f"the group {name} has {len(group.members)} members; stop them first", group=name)
        return group

    async def _group_state(self, group: Group, dead: int, held: int) -> GroupState:
        cursors = [None if cursor.tail else cursor.position for cursor in group.cursors]
        if group.ordered:
            cursors = [cursors[1]] * len(cursors)
        topics = self._broker.topics_of(group)
        behind, oldest = await self._broker.reader.call(lambda reading: reading.waiting(cursors, topics))
        waiting = sum(group.waiting.counts) + group.waiting.parked + sum(item.due == 0 for item in group.delayed)
        first = min((entry.offset for entry in group.waiting if entry.offset > 0), default=None)
        if first is not None:
            rows = await self._broker.reader.call(lambda reading: reading.at([first]))
            oldest = min((at for at in (oldest, *(row.at for row in rows)) if at), default=0)
        return GroupState(
            name=group.name,
            patterns=group.patterns,
            members=len(group.members),
            lag=behind + waiting,
            unsettled=len(group.given),
            delayed=held,
            dead=dead,
            delivered=group.delivered,
            acked=group.acked,
            oldest_at=moment(oldest) if oldest else None,
        )


def _topic_state(topic: Topic, first: int | None, last: int | None) -> TopicState:
    settings = read_settings(json.loads(topic.settings)) if topic.settings else TopicSettings(topic.name)
    last_at = moment(topic.last_at) if topic.last_at else None
    return TopicState(settings, topic.events, topic.bytes, topic.published, first, last, last_at)


def _dead_letter(letter: Letter) -> DeadLetter:
    event = decode_event(letter.head, letter.data)
    return DeadLetter(
        f"{letter.id:0{_DIGITS}d}", letter.group, event, letter.reason, letter.attempts, moment(letter.died_at)
    )


def _number(id_: str) -> int:
    # What is no id of ours names nothing.
    return int(id_) if id_.isascii() and id_.isdecimal() and len(id_) <= _DIGITS else 0

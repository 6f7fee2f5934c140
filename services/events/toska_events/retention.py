"""Forgetting what every group has had: by age, by a topic's size, and when the log is nearly full.

What a group has yet to settle stays, whatever its age is: a group that never comes back is deleted by an operator, or
fills the log, and then publishing is refused. Little is removed at a time, between commits.
"""

import json
import operator
from datetime import timedelta
from functools import partial

import anyio
import structlog
from toska_common.errors import MeshError
from toska_common.events.embedded.wording import read_settings
from toska_common.events.topics import matches

from toska_events.brokering.broker import Broker
from toska_events.log.file import LogFile
from toska_events.log.rows import Topic

log = structlog.get_logger(__name__)

SLICE = 1000
_PAUSE_S = 0.2
"""Between two looks, however short room is."""
_MICROSECOND = timedelta(microseconds=1)


class Retention:
    """Removes what is old. `look` is one pass."""

    def __init__(self, broker: Broker, max_age: timedelta) -> None:
        self._broker = broker
        self._max_age = max_age // _MICROSECOND
        self._pressed = anyio.Event()
        broker.on_pressure = self._press

    async def run(self, interval: timedelta) -> None:
        """Look once an `interval`, and whenever room is short, for ever."""
        while True:
            with anyio.move_on_after(interval.total_seconds()):
                await self._pressed.wait()
            self._pressed = anyio.Event()
            try:
                await self.look()
            except MeshError as error:  # a disk without room: the next look may find some
                log.warning("events_not_removed", reason=error.detail)
            await anyio.sleep(_PAUSE_S)

    def _press(self) -> None:
        self._pressed.set()

    async def look(self) -> int:
        """Remove what may go; returns how many bytes of events went."""
        await self._broker.saver.flush()
        removed = 0
        for topic in self._broker.file.topics.all():
            removed += await self._look_at(topic)
        removed += await self._make_room()
        if removed:
            await self._broker.writer.call(LogFile.shrink)
            log.info("events_removed", bytes=removed)
        return removed

    async def _look_at(self, topic: Topic) -> int:
        now = self._broker.now()
        max_age, max_bytes = self._max_age, 0
        if topic.settings:
            settings = read_settings(json.loads(topic.settings))
            max_bytes = settings.max_bytes
            if settings.max_age is not None:
                max_age = settings.max_age // _MICROSECOND
        removed = await self._remove(topic, now - max_age, enough=None)
        if max_bytes and topic.bytes > max_bytes:
            removed += await self._remove(topic, now + 1, enough=topic.bytes - max_bytes)
        return removed

    async def _make_room(self) -> int:
        """The oldest of all topics, while the log is nearly full."""
        removed = 0
        file = self._broker.file
        while await self._broker.writer.call(lambda file: file.room.is_nearly_full):
            topics = await self._broker.reader.call(
                lambda reading: [(reading.bounds(topic.id)[0], topic) for topic in file.topics.all()]
            )
            gone = 0
            for _, topic in sorted(((first, one) for first, one in topics if first), key=operator.itemgetter(0)):
                gone = await self._remove(topic, self._broker.now() + 1, enough=1)
                if gone:
                    break
            if not gone:
                used = await self._broker.writer.call(lambda file: file.room.used_bytes)
                log.warning("event_log_nearly_full", used_bytes=used)
                break
            removed += gone
        return removed

    async def _remove(self, topic: Topic, before: int, enough: int | None) -> int:
        removed, after = 0, 0
        while True:
            upto, kept = self._settled(topic)
            gone, after = await self._broker.writer.call(
                partial(
                    LogFile.remove,
                    topic=topic.id,
                    upto=upto,
                    before=before,
                    kept=kept,
                    after=after,
                    limit=SLICE,
                    enough=None if enough is None else enough - removed,
                )
            )
            removed += gone
            if not after or (enough is not None and removed >= enough):
                return removed

    def _settled(self, topic: Topic) -> tuple[int, list[int]]:
        """Up to which offset every group has looked, and what of that they have yet to settle."""
        upto, kept = self._broker.head, list[int]()
        for group in self._broker.all_groups():
            if any(matches(pattern, topic.name) for pattern in group.patterns):
                row = group.row(self._broker.head)
                upto = min(upto, *row.cursors)
                kept += [offset for offset, _ in row.open]
                kept += [item.offset for item in (*group.delayed, *group.returning.values())]
        return upto, kept

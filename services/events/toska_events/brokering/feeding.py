"""Feeding groups from the file: what is due again, and what they have not kept up with."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from toska_events.groups.delays import MOST, Delayed
from toska_events.groups.entry import Entry, entry_of
from toska_events.groups.group import Group
from toska_events.log.reading import Found
from toska_events.log.rows import Held, Row

if TYPE_CHECKING:
    from toska_events.brokering.broker import Broker

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 2 << 20
_LONGEST_WAIT_S = 3600.0
_AGAIN_S = 0.01


class Feeder:
    """Reads for groups, one query at a time for each, and wakes them when something is due."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._busy: set[Group] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._topics: dict[Group, tuple[int, list[int]]] = {}
        self._closed = False

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def feed(self, group: Group, now: int) -> None:
        """Read what a group can take, unless that is under way; `_fed` goes on."""
        if self._closed or group in self._busy or not group.members:
            return
        if self._feed_due(group, now) or self._feed_behind(group):
            return
        self._feed_delayed(group)
        due = group.next_due
        if due is not None and due > now:
            self._wake_at(due, now)

    def forget_topics(self, group: Group) -> None:
        """What a group wants has changed."""
        self._topics.pop(group, None)

    def wake(self) -> None:
        """Look for what is due."""
        self._timer = None
        now = self._broker.now()
        for group in list(self._broker.all_groups()):
            due = group.next_due
            if due is not None and due <= now:
                self._broker.touch(group)
            elif due is not None and group.members:
                self._wake_at(due, now)

    def _wake_at(self, due: int, now: int) -> None:
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        # A millisecond more: a timer that comes early by the clock's own grain would look in vain.
        self._timer = self._loop.call_later(min((due - now) / 1e6 + 0.001, _LONGEST_WAIT_S), self.wake)

    def _feed_due(self, group: Group, now: int) -> bool:
        """Whether something is being read back."""
        due = group.take_due(now)
        if not due:
            # Without room for what is due, the rest waits behind it.
            return group.next_due is not None and group.next_due <= now
        stored = [item.offset for item in due if item.entry is None]
        if not stored:
            self._come_back(group, due, [])
            return True
        self._busy.add(group)
        self._broker.reader.submit(lambda reading: reading.at(stored), lambda rows: self._read_due(group, due, rows))
        return True

    def _read_due(self, group: Group, due: list[Delayed], rows: list[Row] | Exception) -> None:
        self._busy.discard(group)
        if isinstance(rows, Exception):
            log.error("events_not_read", group=group.name, exc_info=rows)
            group.keep_holding(due)
            self._loop.call_later(1.0, self._broker.touch, group)
            return
        self._come_back(group, due, rows)

    def _come_back(self, group: Group, due: list[Delayed], rows: list[Row]) -> None:
        found = {row.offset: row for row in rows}
        # Each goes to the front, so the first has to come last; those that never were out go to the end, in order.
        for item in sorted(due, key=lambda item: item.offset):
            if not item.blocks:
                group.come_back(item, self._entry(group, item, found))
        for item in sorted(due, key=lambda item: item.offset, reverse=True):
            if item.blocks:
                group.come_back(item, self._entry(group, item, found))
        self._broker.touch(group)

    def _entry(self, group: Group, item: Delayed, found: dict[int, Row]) -> Entry | None:
        if item.entry is not None:
            return item.entry
        row = found.get(item.offset)
        return None if row is None else entry_of(row, ordered=group.ordered)

    def _feed_delayed(self, group: Group) -> None:
        """Read on in what is held for later, if memory has come to the end of what it knows."""
        after = group.delayed.reads_on
        if after is None:
            return
        if not self._broker.saver.store_now():
            self._loop.call_later(_AGAIN_S, self._broker.touch, group)
            return
        group.delayed.begin_read()
        self._busy.add(group)
        # By way of the writer: only after what it is storing is everything that was left to the log in it.
        self._broker.writer.submit(lambda _: None, lambda _: self._read_on(group, *after))

    def _read_on(self, group: Group, due: int, offset: int) -> None:
        if self._broker.saver.failing:
            self._busy.discard(group)
            group.delayed.give_up_read()
            self._loop.call_later(1.0, self._broker.touch, group)
            return
        self._broker.reader.submit(
            lambda reading: reading.held_after(group.id, due, offset, MOST // 2),
            lambda held: self._read_delayed(group, held),
        )

    def _read_delayed(self, group: Group, held: list[Held] | Exception) -> None:
        self._busy.discard(group)
        if isinstance(held, Exception):
            log.error("events_not_read", group=group.name, exc_info=held)
            group.delayed.give_up_read()
            self._loop.call_later(1.0, self._broker.touch, group)
            return
        items = [Delayed(item.due, item.offset, item.attempts, blocks=False, reason=item.reason) for item in held]
        group.delayed.take_read(items, whole=len(items) < MOST // 2)
        self._broker.touch(group)

    def _feed_behind(self, group: Group) -> bool:
        """Whether something of what the group is behind with is being read."""
        for lane in group.lanes:
            if not group.cursors[lane].tail and group.room(lane) >= group.window // 4:
                self._read_lane(group, lane)
                return True
        return False

    def _read_lane(self, group: Group, lane: int) -> None:
        upto, room, position = self._broker.head, group.room(lane), group.cursors[lane].position
        topics, priority = self._topics_of(group), None if group.ordered else lane
        self._busy.add(group)
        self._broker.reader.submit(
            lambda reading: reading.after(
                position, upto, topics, priority=priority, limit=room, max_bytes=_CHUNK_BYTES
            ),
            lambda found: self._read_behind(group, lane, position, found),
        )

    def _read_behind(self, group: Group, lane: int, position: int, found: Found | Exception) -> None:
        self._busy.discard(group)
        cursor = group.cursors[lane]
        if isinstance(found, Exception):
            log.error("events_not_read", group=group.name, exc_info=found)
            self._loop.call_later(1.0, self._broker.touch, group)
            return
        if cursor.tail or cursor.position != position:
            return  # the group was moved meanwhile
        now = self._broker.now()
        for row in found.rows:
            if row.due > now:
                group.schedule(row.offset, row.due)
            else:
                group.offer(entry_of(row, ordered=group.ordered))
        cursor.position = found.seen
        cursor.tail = found.seen >= self._broker.head
        self._broker.touch(group)

    def _topics_of(self, group: Group) -> list[int]:
        version = self._broker.file.topics.version
        known = self._topics.get(group)
        if known is None or known[0] != version:
            known = self._topics[group] = (version, self._broker.topics_of(group))
        return known[1]

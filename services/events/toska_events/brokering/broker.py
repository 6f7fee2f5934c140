"""Brings the log and its groups together, in the event loop: what is committed goes to who wants it.

A group that keeps up is given events as they are committed, out of memory; one that does not is fed from the file, as
far as its members take them. What groups settle is stored some milliseconds later, together with what others have.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

import structlog
from toska_common.clock import Clock
from toska_common.events.embedded.records import Publication, key_of, microseconds
from toska_common.events.embedded.wording import Resumed
from toska_common.events.topics import PatternSet, is_ephemeral, matches

from toska_events.brokering.feeding import Feeder
from toska_events.brokering.saving import Saver
from toska_events.groups.delays import MOST
from toska_events.groups.entry import Entry, entry_of
from toska_events.groups.group import NORMAL, Group
from toska_events.groups.member import Member
from toska_events.log.file import LogFile
from toska_events.log.rows import GroupRow, Row
from toska_events.log.threads import Append, LogReader, LogWriter

log = structlog.get_logger(__name__)


class Broker:
    """The groups of a log, while it is open.

    Attributes:
        head: Offset of the last event that groups were told of.
        groups: Those with a name, by it.
        published: Events that were stored since the start.
        ephemeral: Events of ephemeral topics that came.
        on_pressure: Called when room is short, or may be soon.
    """

    def __init__(self, file: LogFile, writer: LogWriter, reader: LogReader, clock: Clock) -> None:
        self.file = file
        self.writer = writer
        self.reader = reader
        self.clock = clock
        self.head = file.head
        self.groups: dict[str, Group] = {}
        self.anonymous: set[Group] = set()
        self.published = 0
        self.ephemeral = 0
        self.on_pressure: Callable[[], None] = _ignore
        self.wanted: PatternSet[Group] = PatternSet()
        self.saver = Saver(self)
        self.feeder = Feeder(self)
        self._loop = asyncio.get_running_loop()
        self.dropping: dict[str, asyncio.Event] = {}
        """Groups whose row is still in the file; whoever joins one anew waits, for the file has each name once."""
        self._making: dict[str, asyncio.Future[Group]] = {}
        self._touched: set[Group] = set()
        self._pumping = False
        self._added = 0

    async def open(self) -> None:
        """Take up the groups that the file knows."""
        for row in self.file.groups:
            group = Group(row)
            await self._load_held(group)
            self._add(group)
        self.file.groups.clear()

    async def _load_held(self, group: Group) -> None:
        blocking = await self.reader.call(lambda reading: reading.held_blocking(group.id))
        keys: dict[int, str] = {}
        for start in range(0, len(blocking), 500):
            some = [item.offset for item in blocking[start : start + 500]]
            for row in await self.reader.call(lambda reading, some=some: reading.at(some)):
                keys[row.offset] = key_of(row.head) or ""
        group.hold_stored(blocking, keys)
        held = await self.reader.call(lambda reading: reading.held_after(group.id, 0, 0, MOST // 2))
        group.hold_stored(held, {})
        if len(held) == MOST // 2:
            group.delayed.remember_more(held[-1].due, held[-1].offset)

    async def close(self) -> None:
        """Store what groups have settled."""
        self.feeder.close()
        await self.saver.close()

    def now(self) -> int:
        """Microseconds of wall time."""
        return microseconds(self.clock.now())

    def all_groups(self) -> Iterable[Group]:
        """Those with a name and those without."""
        yield from self.groups.values()
        yield from self.anonymous

    def publish(self, publications: list[Publication], size: int, done: Callable[[Exception | None], None]) -> None:
        """Store events and tell who wants them; `done` is called once they are safe, or with why they are not."""
        lasting = [event for event in publications if not is_ephemeral(event.topic)]
        if len(lasting) < len(publications):
            for event in publications:
                if is_ephemeral(event.topic):
                    self._publish_ephemeral(event)
        if lasting:
            self._weigh(size)
            self.writer.append(Append(lasting, size, partial(self._committed, done)))
        else:
            done(None)

    async def join(self, spec: GroupRow, member: Member, position: Callable[[], int] | None) -> Group:
        """Make a subscription live.

        Args:
            spec: What it wants; `name` is empty for one without a group.
            member: Whom to give events.
            position: Where a group that is new begins: after that offset; `None` for now.
        """
        if not spec.name:
            group = self._begin(spec, position, durable=False)
        else:
            group = await self._find_group(spec, position)
        self._adopt(group, spec)
        group.join(member)
        self.touch(group)
        return group

    async def _find_group(self, spec: GroupRow, position: Callable[[], int] | None) -> Group:
        while True:
            while dropping := self.dropping.get(spec.name):
                await dropping.wait()
            # Looked for again once it was made: it may have been deleted since, before anybody was in it.
            if group := self.groups.get(spec.name):
                return group
            making = self._making.get(spec.name) or self._make_group(spec, position)
            # Shielded: one of several that wait for it may leave.
            await asyncio.shield(making)

    async def resume(self, spec: GroupRow, member: Member, resumed: Resumed) -> Group:
        """Make a subscription live that shares with nobody, where it was when its connection broke."""
        low, normal, high = (min(cursor, self.head) for cursor in resumed.cursors)
        if spec.ordered:
            low = high = normal
        spec.cursors, spec.open = (low, normal, high), list(resumed.open)
        upto, since = max(spec.cursors), resumed.since
        group = Group(spec, durable=False)
        topics = self.topics_of(group)
        later = await self.reader.call(lambda reading: reading.scheduled(upto, since, topics))
        for offset, due in later:
            group.schedule(offset, due)
        self._add(group)
        group.join(member)
        self.touch(group)
        return group

    def leave(self, group: Group, member: Member) -> None:
        """A subscription ends."""
        group.leave(member)
        if not group.durable:
            self.anonymous.discard(group)
            self.wanted.drop(group)
            return
        self.saver.mark(group)
        self.touch(group)

    def forget(self, group: Group) -> None:
        """A group is no more."""
        self.groups.pop(group.name, None)
        self.wanted.drop(group)
        self.saver.drop(group)

    def touch(self, group: Group) -> None:
        """Give out what a group has ready, soon: once for all that happens in this turn of the loop."""
        self._touched.add(group)
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        touched, self._touched = self._touched, set()
        now = self.now()
        for group in touched:
            group.hand_out(now)
            self.saver.mark(group)
            self.feeder.feed(group, now)

    def _committed(self, done: Callable[[Exception | None], None], result: list[Row] | Exception) -> None:
        if isinstance(result, Exception):
            self.on_pressure()
            done(result)
            return
        if result:
            self._dispatch(result)
        done(None)

    def _dispatch(self, rows: list[Row]) -> None:
        names = self.file.topics.names
        now = rows[-1].at
        for row in rows:
            name = names.get(row.topic)
            if name is None:
                continue  # it was deleted at once
            for group in self.wanted.matching(name):
                self._tell(group, row, now)
        self.head = rows[-1].offset
        self.published += len(rows)

    def _tell(self, group: Group, row: Row, now: int) -> None:
        lane = NORMAL if group.ordered else row.priority
        cursor = group.cursors[lane]
        if not cursor.tail:
            return
        if row.due > now:
            group.schedule(row.offset, row.due)
        elif group.members and group.room(lane):
            group.offer(entry_of(row, ordered=group.ordered))
        else:
            cursor.tail, cursor.position = False, row.offset - 1
        self.touch(group)

    def _weigh(self, size: int) -> None:
        """Have room looked for before it is missing: whenever a part of the log's bytes was added."""
        self._added += size
        if self._added > self.file.room.max_bytes // 20:
            self._added = 0
            self.on_pressure()

    def _publish_ephemeral(self, event: Publication) -> None:
        self.ephemeral += 1
        offset = -self.ephemeral
        for group in self.wanted.matching(event.topic):
            if group.members:
                key = key_of(event.head) if group.ordered else None
                entry = Entry(offset, 0, event.priority, event.expires_at, event.head, event.data, key)
                if event.deliver_at > self.now():
                    group.schedule(offset, event.deliver_at, entry)
                else:
                    group.offer_ephemeral(entry)
                self.touch(group)

    def _begin(self, spec: GroupRow, position: Callable[[], int] | None, *, durable: bool) -> Group:
        start = self.head if position is None else min(position(), self.head)
        spec.cursors = (start, start, start)
        group = Group(spec, durable=durable)
        if start == self.head:
            for cursor in group.cursors:
                cursor.tail = True
        self._add(group)
        return group

    def _make_group(self, spec: GroupRow, position: Callable[[], int] | None) -> asyncio.Future[Group]:
        made: asyncio.Future[Group] = self._loop.create_future()
        # Whoever joins it before it is stored waits for the same one: the file has each name once.
        self._making[spec.name] = made
        made.add_done_callback(lambda done: done.exception())  # also if nobody waits any more

        def store(file: LogFile) -> None:
            at = file.head if position is None else min(position(), file.head)
            spec.cursors = (at, at, at)
            file.make_group(spec)

        def stored(result: Exception | None) -> None:
            # Called in its turn among the commits, so that the group is told of the first one after it.
            del self._making[spec.name]
            if isinstance(result, Exception):
                made.set_exception(result)
            else:
                made.set_result(self._begin(spec, lambda: spec.cursors[NORMAL], durable=True))

        self.writer.submit(store, stored)
        return made

    def _add(self, group: Group) -> None:
        if group.durable:
            self.groups[group.name] = group
        else:
            self.anonymous.add(group)
        self.wanted.put(group, group.patterns)

    def _adopt(self, group: Group, spec: GroupRow) -> None:
        """What the newest member says holds; patterns only grow, for nothing that was wanted may be lost."""
        if group.ordered != spec.ordered:
            group.change_order(spec.ordered, self.head)
        added = tuple(pattern for pattern in spec.patterns if pattern not in group.patterns)
        if added:
            group.patterns += added
            self.wanted.put(group, group.patterns)
            self.feeder.forget_topics(group)
        group.attempts = spec.attempts
        if group.durable:
            self.saver.mark(group)

    def topics_of(self, group: Group) -> list[int]:
        """Ids of the topics that a group wants, of those that there are."""
        return [
            topic.id
            for topic in self.file.topics.all()
            if any(matches(pattern, topic.name) for pattern in group.patterns)
        ]


def _ignore() -> None:
    """Nobody looks for room."""

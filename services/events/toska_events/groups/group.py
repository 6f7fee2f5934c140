"""One group: what it has in hand, what it holds for later, and who of its members is given what.

    after a cursor --offer--> waiting --hand_out--> with a member --settle--> settled
                                 ^                       |   |
                                 |                       |   +--reject, or too many attempts--> dead
                                 +--come_back-- held <---+ retry
                                 +--------- give_back ---+ its consumer went

Three cursors, by priority, say how far the log was looked at; with order kept there is one, the middle one. What is
at or before its cursor is settled, waiting, with a member, or held: nothing else, so these four are what is stored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from toska_common.errors import Conflict

from toska_events.groups.delays import Delayed, Delays
from toska_events.groups.entry import Entry
from toska_events.groups.member import Member
from toska_events.groups.waiting import LANES, WaitingRoom
from toska_events.log.rows import Dead, GroupRow, Held

NORMAL = 1
_WINDOW = 512
_WINDOW_BYTES = 8 << 20
_MOST_PARKED = 10_000
_SHARE = 64
"""Most that one member is given before the next has its turn."""


@dataclass(slots=True)
class Cursor:
    """How far the log was looked at: to `position`, or, with `tail`, as far as it goes."""

    position: int
    tail: bool = False


@dataclass(slots=True)
class Unstored:
    """What has changed since it was stored last; the newest of each offset."""

    held: dict[int, Held | None] = field(default_factory=dict[int, Held | None])
    dead: list[Dead] = field(default_factory=list[Dead])


class Group:
    """A group, or the subscription of somebody who shares with nobody (`durable` is False then).

    Attributes:
        members: In the order in which they are given events.
        delayed: What is held for later.
        returning: What is due and being read back, by offset.
        unstored: For whoever stores it.
        shed: Ephemeral events that were dropped, since nobody took them.
    """

    def __init__(self, row: GroupRow, *, durable: bool = True) -> None:
        self.id = row.id
        self.name = row.name
        self.patterns = row.patterns
        self.ordered = row.ordered
        self.sequential = row.sequential
        self.attempts = row.attempts
        self.durable = durable
        self.delivered = row.delivered
        self.acked = row.acked
        self.cursors = [Cursor(position) for position in row.cursors]
        self.waiting = WaitingRoom()
        self.given: dict[int, Entry] = {}
        self.members: list[Member] = []
        # What was in hand when this was stored comes first, and in order.
        self.delayed = Delays(stored=durable)
        for offset, attempts in row.open:
            self.delayed.push(Delayed(0, offset, attempts, blocks=False))
        self.returning: dict[int, Delayed] = {}
        self.unstored = Unstored()
        self.shed = 0
        self._turn = 0

    @property
    def lanes(self) -> tuple[int, ...]:
        """Priorities that are read apart from each other, highest first."""
        return (NORMAL,) if self.ordered else tuple(reversed(range(LANES)))

    @property
    def window(self) -> int:
        """Events of one priority that wait in memory at most."""
        return max(_WINDOW, 2 * sum(member.prefetch for member in self.members))

    def room(self, lane: int) -> int:
        """How many more may wait."""
        if self.waiting.bytes >= _WINDOW_BYTES or self.waiting.parked >= _MOST_PARKED:
            return 0
        counted = sum(self.waiting.counts) if self.ordered else self.waiting.counts[lane]
        return max(0, self.window - counted)

    def row(self, head: int) -> GroupRow:
        """What is to be stored."""
        positions = [head if cursor.tail else cursor.position for cursor in self.cursors]
        if self.ordered:
            positions = [positions[NORMAL]] * LANES
        open_ = [(entry.offset, entry.attempts) for entry in self.open if entry.offset > 0]
        open_ += [(offset, 0) for offset in self.waiting.parked_offsets]
        early = [(item.offset, item.attempts) for item in (*self.delayed, *self.returning.values()) if item.due == 0]
        low, normal, high = positions
        return GroupRow(
            self.id, self.name, self.patterns, self.ordered, self.attempts, (low, normal, high), self.delivered,
            self.acked, open_ + early,
        )  # fmt: skip

    @property
    def open(self) -> Iterable[Entry]:
        """What is waiting or with a member."""
        yield from self.waiting
        yield from self.given.values()

    def hold_stored(self, held: Iterable[Held], keys: dict[int, str]) -> None:
        """Take in what was held when this was stored; `keys` of those that block theirs, by offset."""
        for item in held:
            key = keys.get(item.offset) if item.blocks else None
            self.delayed.push(Delayed(item.due, item.offset, item.attempts, key is not None, item.reason, key))
            if key is not None:
                self.waiting.block(key)

    def offer(self, entry: Entry) -> None:
        """Take in an event that the group has not seen."""
        self.waiting.offer(self._levelled(entry))

    def offer_ephemeral(self, entry: Entry) -> None:
        """Take in an event that is stored nowhere; the oldest goes if nobody takes them."""
        if self.room(entry.priority) == 0:
            self.shed += 1
            return
        self.waiting.offer(self._levelled(entry))

    def schedule(self, offset: int, due: int, entry: Entry | None = None) -> None:
        """Hold an event that nobody was given yet, until its time."""
        self._hold(Delayed(due, offset, 0, blocks=False, entry=entry))

    def hand_out(self, now: int) -> list[Member]:
        """Give members what is ready, as far as they take it; returns those that were given something."""
        served: dict[Member, list[Entry]] = {}
        while self.waiting.any_ready:
            member = self._next_member()
            if member is None:
                break
            taken = served.setdefault(member, [])
            for _ in range(min(member.credit, _SHARE, max(1, self.waiting.ready // len(self.members)))):
                entry = self._next_for(member, now) if member.credit > 0 else None
                if entry is None:
                    break
                taken.append(entry)
        for member, entries in served.items():
            if entries:
                member.deliver(entries)
        return list(served)

    def settle(self, member: Member, offset: int) -> None:
        """A member has handled an event; nothing happens if it is no longer its own."""
        entry = self._take_from(member, offset)
        if entry is not None:
            self.acked += 1
            self._settled(entry)

    def retry(self, member: Member, offset: int, due: int, reason: str, now: int) -> None:
        """A member wants an event to come again, no earlier than `due`."""
        entry = self._take_from(member, offset)
        if entry is None:
            return
        if entry.attempts >= self.attempts:
            self._bury(entry, reason, now)
            return
        entry.reason = reason
        kept = entry if offset < 0 else None
        if entry.key is not None:
            self.waiting.block(entry.key)
        self._hold(Delayed(due, offset, entry.attempts, entry.key is not None, reason, entry.key, kept))

    def reject(self, member: Member, offset: int, reason: str, now: int) -> None:
        """A member cannot handle an event, however often it comes."""
        entry = self._take_from(member, offset)
        if entry is not None:
            self._bury(entry, reason, now)

    def join(self, member: Member) -> None:
        """Somebody wants a share."""
        self.members.append(member)

    def leave(self, member: Member) -> None:
        """Somebody goes; what was given and not settled is for the others, before everything else."""
        self.members.remove(member)
        for offset in sorted(member.held, reverse=True):
            entry = self._take_from(member, offset)
            if entry is not None:
                self.waiting.put_back(entry)
        if not self.members:
            self._forget_ephemeral()

    def take_due(self, now: int) -> list[Delayed]:
        """What is held and due, as far as there is room for it; the caller reads it back and lets it `come_back`."""
        found: list[Delayed] = []
        room = max(self.room(NORMAL), 1 if not self.waiting.any_ready else 0)
        while len(found) < room and (item := self.delayed.pop_due(now)) is not None:
            self.returning[item.offset] = item
            found.append(item)
        return found

    @property
    def next_due(self) -> int | None:
        """When the next of what is held is due."""
        return self.delayed.next_due

    def come_back(self, item: Delayed, entry: Entry | None) -> None:
        """What was held is here again; `None` if it was removed meanwhile."""
        if self.returning.pop(item.offset, None) is None:
            return  # the group was moved meanwhile
        if item.due and item.entry is None and self.durable:
            self.unstored.held[item.offset] = None
        if entry is None:
            self._release(item.key)
            return
        entry.attempts, entry.reason = item.attempts, item.reason
        entry = self._levelled(entry)
        if item.blocks:
            self.waiting.put_back(entry)
        else:
            self.waiting.offer(entry)

    def keep_holding(self, items: Iterable[Delayed]) -> None:
        """They could not be read: later, then."""
        for item in items:
            if self.returning.pop(item.offset, None) is not None:
                self.delayed.push(item)

    def drop_topic(self, topic: int, offsets: set[int]) -> None:
        """Forget what waits or is held of a topic."""
        self._drop_waiting(lambda entry: entry.topic == topic)
        self._drop_delayed(lambda item: item.offset in offsets)

    def change_order(self, ordered: bool, head: int) -> None:
        """Keep order from now on, or no longer.

        Raises:
            Conflict: The group has members that want the other.
        """
        if self.members or self.given:
            raise Conflict(f"the group {self.name} has members that want order {'not ' if ordered else ''}kept")
        # One cursor for all priorities, or the other way round: what was in hand beyond the lowest comes again.
        lowest = min(head if cursor.tail else cursor.position for cursor in self.cursors)
        offsets = [*(entry.offset for entry in self.waiting if entry.offset > 0), *self.waiting.parked_offsets]
        first = min(offsets, default=lowest + 1)
        self.waiting = WaitingRoom()
        self.cursors = [Cursor(min(lowest, first - 1)) for _ in range(LANES)]
        self.ordered = ordered

    def seek(self, position: int) -> None:
        """Begin again after `position`; whatever was in hand is settled."""
        self.cursors = [Cursor(position) for _ in range(LANES)]
        self.waiting = WaitingRoom()
        self.given.clear()
        self.delayed.clear()
        self.returning.clear()
        self.unstored.held.clear()

    def _levelled(self, entry: Entry) -> Entry:
        if self.sequential:
            entry.priority, entry.key = NORMAL, None
        return entry

    def _next_member(self) -> Member | None:
        for step in range(len(self.members)):
            at = (self._turn + step) % len(self.members)
            if self.members[at].credit > 0:
                self._turn = at + 1
                return self.members[at]
        return None

    def _next_for(self, member: Member, now: int) -> Entry | None:
        """The next event that is worth handing out to a member; those that are not are settled."""
        while (entry := self.waiting.take()) is not None:
            if entry.expires and entry.expires <= now:
                self._settled(entry)
            elif entry.attempts >= self.attempts:
                reason = entry.reason or "its consumers went away before they had settled it"
                self._bury(entry, f"handed out {entry.attempts} times: {reason}", now)
            elif member.wants is not None and not member.wants(entry):
                self._settled(entry)
            else:
                entry.attempts += 1
                self.delivered += 1
                self.given[entry.offset] = entry
                member.take(entry)
                return entry
        return None

    def _take_from(self, member: Member, offset: int) -> Entry | None:
        if not member.give_back(offset):
            return None
        return self.given.pop(offset, None)

    def _settled(self, entry: Entry) -> None:
        if entry.key is not None:
            self._release(entry.key)

    def _bury(self, entry: Entry, reason: str, now: int) -> None:
        if entry.offset > 0 and self.durable:
            topic = entry.head.split(b"\0", 1)[0].decode()
            self.unstored.dead.append(
                Dead(self.id, entry.offset, topic, entry.head, entry.data, reason, entry.attempts, now)
            )
        self._settled(entry)

    def _hold(self, item: Delayed) -> None:
        self.delayed.push(item)
        if item.entry is None and self.durable:
            self.unstored.held[item.offset] = Held(
                self.id, item.offset, item.due, item.attempts, item.blocks, item.reason
            )

    def _forget_ephemeral(self) -> None:
        self._drop_waiting(lambda entry: entry.offset < 0)
        self._drop_delayed(lambda item: item.entry is not None)

    def _drop_delayed(self, unwanted: Callable[[Delayed], bool]) -> None:
        for item in self.delayed.drop(unwanted):
            self._release(item.key)

    def _drop_waiting(self, unwanted: Callable[[Entry], bool]) -> None:
        for entry in self.waiting.drop(unwanted):
            self._release(entry.key)

    def _release(self, key: str | None) -> None:
        """Let the next of a key have its turn; one that was parked is read back first, and nothing passes it by."""
        parked = self.waiting.release(key)
        if parked is not None:
            self.delayed.push(Delayed(0, parked, 0, blocks=True, key=key))

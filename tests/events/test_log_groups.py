"""A group of the event log as a plain object: hours pass in microseconds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.clock import now_utc
from toska_common.errors import Conflict
from toska_common.events.embedded.records import encode_head
from toska_common.events.event import Event
from toska_events.groups.delays import Delayed, Delays
from toska_events.groups.entry import Entry
from toska_events.groups.group import Group
from toska_events.groups.member import Member
from toska_events.log.rows import GroupRow, Held

HOUR = 3_600_000_000


def make_group(*, ordered: bool = False, attempts: int = 3, opened: list[tuple[int, int]] | None = None) -> Group:
    return Group(GroupRow(1, "g", ("#",), ordered, attempts, (0, 0, 0), open=opened or []))


def entry(offset: int, *, key: str | None = None, priority: int = 1, expires: int = 0) -> Entry:
    head = encode_head(Event(topic="a", source="/s", id=str(offset), time=now_utc(), key=key))
    return Entry(offset, 1, priority, expires, head, b"", key)


def read_back(group: Group, entries: dict[int, Entry], now: int = 0) -> None:
    """As the log does with what is due, or was parked."""
    for item in group.take_due(now):
        group.come_back(item, entries[item.offset])


class Taker:
    """A member that notes what it is given."""

    def __init__(self, group: Group, prefetch: int = 10) -> None:
        self.given: list[Entry] = []
        self.member = Member(prefetch, self.given.extend)
        group.join(self.member)

    @property
    def offsets(self) -> list[int]:
        return [one.offset for one in self.given]


def test_a_retried_event_waits_hours_and_keeps_only_its_own_key_waiting() -> None:
    group = make_group(ordered=True)
    taker = Taker(group)
    for one in (entry(1, key="a"), entry(2, key="a"), entry(3, key="b"), entry(4, key="b")):
        group.offer(one)
    group.hand_out(0)
    assert taker.offsets == [1, 3]
    group.retry(taker.member, 1, 2 * HOUR, "not yet", 0)
    group.settle(taker.member, 3)
    group.hand_out(HOUR)
    assert taker.offsets == [1, 3, 4]
    assert group.take_due(2 * HOUR - 1) == []
    (due,) = group.take_due(2 * HOUR)
    group.come_back(due, entry(1, key="a"))
    group.hand_out(2 * HOUR)
    assert taker.offsets == [1, 3, 4, 1]
    assert taker.given[-1].attempts == 2
    group.settle(taker.member, 1)
    read_back(group, {2: entry(2, key="a")})
    group.hand_out(2 * HOUR)
    assert taker.offsets == [1, 3, 4, 1, 2]


def test_a_key_that_fails_for_an_hour_does_not_fill_the_room_for_all_others() -> None:
    group = make_group(ordered=True)
    taker = Taker(group)
    entries = {offset: entry(offset, key="bad") for offset in range(1, 3001)}
    group.offer(entries[1])
    for offset in range(2, 100):
        group.offer(entries[offset])
    group.hand_out(0)
    group.retry(taker.member, 1, HOUR, "later", 0)
    for offset in range(100, 3001):
        group.offer(entries[offset])
    assert group.room(1) == group.window
    assert group.waiting.parked == 2999
    group.offer(entry(3001, key="good"))
    group.hand_out(0)
    assert taker.offsets == [1, 3001]
    assert sorted(group.row(3001).open) == [*((offset, 0) for offset in range(2, 3001)), (3001, 1)]
    for _ in range(20):
        for due in group.take_due(HOUR):
            group.come_back(due, entries[due.offset])
        group.hand_out(HOUR)
        group.settle(taker.member, taker.offsets[-1])
    assert taker.offsets[2:] == list(range(1, 21))


def test_a_key_goes_on_if_what_it_waits_for_was_removed() -> None:
    group = make_group(ordered=True)
    taker = Taker(group)
    group.offer(entry(1, key="a"))
    group.offer(entry(2, key="a"))
    group.hand_out(0)
    group.retry(taker.member, 1, HOUR, "later", 0)
    (due,) = group.take_due(HOUR)
    group.come_back(due, None)
    read_back(group, {2: entry(2, key="a")})
    group.hand_out(HOUR)
    assert taker.offsets == [1, 2]


def test_a_key_that_waited_when_it_was_stored_waits_when_it_is_read() -> None:
    group = make_group(ordered=True)
    group.hold_stored([Held(1, 1, HOUR, 1, blocks=True, reason="later")], {1: "a"})
    taker = Taker(group)
    group.offer(entry(2, key="a"))
    group.offer(entry(3, key="b"))
    group.hand_out(0)
    assert taker.offsets == [3]
    (due,) = group.take_due(HOUR)
    group.come_back(due, entry(1, key="a"))
    group.hand_out(HOUR)
    assert taker.offsets == [3, 1]


def test_what_was_in_hand_when_it_was_stored_comes_first_and_in_order() -> None:
    group = make_group(ordered=True, opened=[(5, 0), (2, 1), (4, 0)])
    taker = Taker(group)
    due = group.take_due(HOUR)
    assert [item.offset for item in due] == [2, 4, 5]
    for item in due:
        group.come_back(item, entry(item.offset, key="a"))
    seen: list[int] = []
    for _ in range(3):
        group.hand_out(HOUR)
        seen.append(taker.offsets[-1])
        group.settle(taker.member, taker.offsets[-1])
    assert seen == [2, 4, 5]


def test_what_is_being_read_back_is_stored_as_open_meanwhile() -> None:
    group = make_group(opened=[(2, 1)])
    Taker(group)
    group.take_due(HOUR)
    assert group.row(10).open == [(2, 1)]


def test_expired_events_are_settled_unseen() -> None:
    group = make_group(ordered=True)
    taker = Taker(group)
    group.offer(entry(1, key="a", expires=HOUR))
    group.offer(entry(2, key="a"))
    group.hand_out(HOUR)
    assert taker.offsets == [2]
    assert group.row(10).open == [(2, 1)]


def test_an_event_that_takes_its_consumers_along_is_buried_with_what_is_known() -> None:
    group = make_group(attempts=2)
    group.offer(entry(1))
    for _ in range(2):
        taker = Taker(group)
        group.hand_out(0)
        assert taker.offsets == [1]
        group.leave(taker.member)
    taker = Taker(group)
    group.hand_out(7)
    assert taker.offsets == []
    (dead,) = group.unstored.dead
    assert (dead.offset, dead.attempts, dead.died_at, dead.topic) == (1, 2, 7, "a")
    assert "handed out 2 times" in dead.reason


def test_settling_twice_or_what_belongs_to_another_does_nothing() -> None:
    group = make_group()
    first, second = Taker(group, prefetch=1), Taker(group, prefetch=1)
    group.offer(entry(1))
    group.hand_out(0)
    other = second if first.offsets else first
    owner = first if first.offsets else second
    group.settle(other.member, 1)
    group.reject(other.member, 1, "not mine", 0)
    assert group.row(5).open == [(1, 1)]
    group.settle(owner.member, 1)
    group.settle(owner.member, 1)
    group.retry(owner.member, 1, HOUR, "late", 0)
    assert (group.row(5).open, group.acked, list(group.delayed)) == ([], 1, [])


def test_a_member_that_does_not_listen_is_given_nothing_and_keeps_nobody_waiting() -> None:
    group = make_group()
    deaf, hearing = Taker(group), Taker(group)
    deaf.member.listening = False
    for offset in range(1, 6):
        group.offer(entry(offset))
    group.hand_out(0)
    assert (deaf.offsets, hearing.offsets) == ([], [1, 2, 3, 4, 5])


def test_an_order_that_changes_under_members_is_a_conflict() -> None:
    group = make_group()
    taker = Taker(group)
    with pytest.raises(Conflict):
        group.change_order(True, 10)
    group.offer(entry(7))
    group.leave(taker.member)
    group.change_order(True, 10)
    assert group.row(10).cursors == (0, 0, 0)


def test_ephemeral_events_are_kept_for_no_one_and_shed_when_they_pile_up() -> None:
    group = make_group()
    taker = Taker(group, prefetch=1)
    for number in range(1, 2000):
        group.offer_ephemeral(entry(-number))
    assert group.shed > 0
    assert group.waiting.counts[1] <= group.window
    group.hand_out(0)
    group.retry(taker.member, -1, HOUR, "again", 0)
    assert not group.unstored.held
    group.leave(taker.member)
    assert (list(group.waiting), list(group.delayed), group.row(3).open) == ([], [], [])


ACTIONS = ["offer", "take", "ack", "retry", "reject", "die", "due"]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_every_event_is_settled_waiting_given_held_or_dead_and_keys_keep_order(
    seed: int, ordered: bool
) -> None:
    random_ = random.Random(seed)
    steps = random_.choices(ACTIONS, weights=[6, 4, 5, 2, 1, 1, 4], k=1000)
    group = make_group(ordered=ordered, attempts=1000)
    taker = Taker(group, prefetch=3)
    entries: dict[int, Entry] = {}
    settled: list[int] = []
    for now, action in enumerate(steps, 1):
        number = random_.randrange(3)
        held = sorted(taker.member.held)
        if action == "offer":
            offset = len(entries) + 1
            entries[offset] = entry(offset, key=f"k{number}" if ordered and number else None)
            group.offer(entries[offset])
        elif action == "take":
            group.hand_out(now)
        elif action == "die":
            group.leave(taker.member)
            taker = Taker(group, prefetch=3)
        elif action == "due":
            for item in group.take_due(now):
                group.come_back(item, entries[item.offset])
        elif held:
            offset = held[number % len(held)]
            if action == "ack":
                group.settle(taker.member, offset)
                settled.append(offset)
            elif action == "retry":
                group.retry(taker.member, offset, now + 5 * number, "again", now)
            else:
                group.reject(taker.member, offset, "no", now)
                settled.append(offset)
        keyed = [entries[offset].key for offset in taker.member.held if entries[offset].key]
        assert len(keyed) == len(set(keyed))
    open_ = [offset for offset, _ in group.row(len(entries)).open]
    delayed = [item.offset for item in group.delayed if item.due]  # without a moment it is open
    assert sorted([*open_, *delayed, *settled]) == sorted(entries)
    for key in {one.key for one in entries.values() if one.key}:
        order = [offset for offset in settled if entries[offset].key == key]
        assert order == sorted(order)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=60), st.integers(1, 6))
def test_of_what_is_held_memory_has_the_next_and_nothing_is_forgotten(held: list[tuple[int, bool]], chunk: int) -> None:
    delays = Delays(stored=True, most=8)
    stored: dict[int, Delayed] = {}
    taken: list[int] = []

    def take(now: int) -> None:
        while True:
            if (after := delays.reads_on) is not None:
                delays.begin_read()
                rest = sorted(one for one in stored.values() if (one.due, one.offset) > after and not one.blocks)
                delays.take_read(rest[:chunk], whole=len(rest) < chunk)
            if (item := delays.pop_due(now)) is None:
                if delays.reads_on is None:
                    return
                continue
            taken.append(item.offset)
            del stored[item.offset]

    for offset, (due, blocks) in enumerate(held, 1):
        item = Delayed(due, offset, 1, blocks)
        stored[offset] = item
        delays.push(item)
        assert len(delays) <= 8 + 2 * sum(blocks for _, blocks in held) + 8
        if offset % 7 == 0:
            take(due // 2)
    take(50)
    assert sorted(taken) == list(range(1, len(held) + 1))


def test_a_member_is_given_no_more_bytes_than_it_may_hold_and_always_one() -> None:
    group = make_group()
    taker = Taker(group, prefetch=100)
    for offset in range(1, 9):
        large = entry(offset)
        large.data = bytes(3 << 20)
        group.offer(large)
    group.hand_out(0)
    assert taker.offsets == [1, 2]
    group.settle(taker.member, 1)
    group.hand_out(0)
    assert taker.offsets == [1, 2, 3]
    group.retry(taker.member, 2, HOUR, "later", 0)
    group.reject(taker.member, 3, "no", 0)
    group.hand_out(0)
    assert taker.offsets == [1, 2, 3, 4, 5]

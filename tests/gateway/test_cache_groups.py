"""What responses are in by their Cache-Groups, what of the store events end, and what has ended. Pure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_gateway.worker.cache.endings import GROUP, MOST, ROUTE, URL, Endings
from toska_gateway.worker.cache.entry import ENTRY_OVERHEAD, GROUP_OVERHEAD, Entry
from toska_gateway.worker.cache.groups import MAX_GROUP_BYTES, MAX_GROUPS, read_groups
from toska_gateway.worker.cache.store import ResponseStore

NAMES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


def quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize(
    ("lines", "groups"),
    [
        ([], ()),
        ([b""], ()),
        ([b'"a"'], (b"a",)),
        ([b'"a", "b" ,\t"c"'], (b"a", b"b", b"c")),
        ([b'"a"', b'"b"'], (b"a", b"b")),
        ([b'"a", "a"'], (b"a",)),
        ([b'"A", "a"'], (b"A", b"a")),
        ([b'"a;b, c"'], (b"a;b, c",)),
        ([rb'"a\"b\\c"'], (rb'a"b\c',)),
        ([b'"a";x;y=1;z="q,;";t=tok/en, "b"; w=?1'], (b"a", b"b")),
        ([b"a"], None),
        ([b'"a" "b"'], None),
        ([b'"a",'], None),
        ([b',"a"'], None),
        ([b'"a'], None),
        ([rb'"a\n"'], None),
        ([b'"\xc3\xa4"'], None),
        ([b'("a" "b")'], None),
        ([b'"a";X=1'], None),
        ([b'"' + b"x" * MAX_GROUP_BYTES + b'"'], (b"x" * MAX_GROUP_BYTES,)),
        ([b'"' + b"x" * (MAX_GROUP_BYTES + 1) + b'"'], None),
    ],
)
def test_groups_are_a_list_of_strings_and_whatever_is_none_is_not_read(
    lines: list[bytes], groups: tuple[bytes, ...] | None
) -> None:
    assert read_groups(lines) == groups


def test_a_response_is_in_as_many_groups_as_are_allowed_and_no_more() -> None:
    most = [b'"%d"' % number for number in range(MAX_GROUPS)]
    assert len(read_groups(most) or ()) == MAX_GROUPS
    assert read_groups([*most, b'"more"']) is None


@settings(deadline=None)
@given(st.lists(NAMES, max_size=8, unique=True))
def test_what_is_written_as_strings_is_read_as_it_was(names: list[str]) -> None:
    value = ", ".join(map(quoted, names)).encode()
    assert read_groups([value]) == tuple(name.encode() for name in names)


def entry(path: str, *groups: bytes, route: str = "shop", ended_by_events: bool = True, body: int = 0) -> Entry:
    made = Entry()
    made.key = made.primary = f"{route} {path}".encode()
    made.url = path.encode()
    made.route = route
    made.vary = ()
    made.head = b""
    made.body = b"x" * body
    made.groups = groups if ended_by_events else None
    return made


def store_of(*entries: Entry, capacity: int = 1 << 20) -> ResponseStore:
    store = ResponseStore(capacity)
    for one in entries:
        store.put(one)
    return store


NOTHING: frozenset[str] = frozenset()


def ended(store: ResponseStore, groups: list[bytes], urls: list[bytes], routes: frozenset[str]) -> int:
    """Forget what these end; returns how much that was."""
    found = store.find_ended(groups, urls, routes)
    before = len(store)
    for one in found:
        store.remove(one)
    assert before - len(store) == len(found)
    return len(found)


def test_events_end_what_is_in_a_group_has_a_url_or_a_route_and_listens() -> None:
    store = store_of(
        entry("/1", b"a"),
        entry("/2", b"a", b"b"),
        entry("/3"),
        entry("/3", route="other"),
        entry("/3", route="deaf", ended_by_events=False),
    )
    assert ended(store, [b"a"], [], NOTHING) == 2
    assert ended(store, [b"b"], [], NOTHING) == 0
    assert ended(store, [], [b"/3"], frozenset({"shop", "deaf"})) == 2
    assert len(store) == 1
    store.put(entry("/4", b"a"))
    assert len(store.of_events()) == 1
    assert [one.route for one in [store.find_plain(b"deaf /3")] if one is not None] == ["deaf"]


def test_what_comes_in_anothers_place_is_in_its_own_groups_only() -> None:
    store = store_of(entry("/1", b"old", b"both"), entry("/1", b"new", b"both"))
    assert ended(store, [b"old"], [], NOTHING) == 0
    assert ended(store, [b"both", b"new"], [], NOTHING) == 1


def test_groups_survive_a_change_of_the_stores_size() -> None:
    store = store_of(entry("/1", b"a"))
    store.resize(2 << 20)
    assert ended(store, [b"a"], [], NOTHING) == 1


def test_groups_take_memory_like_everything_else() -> None:
    assert entry("/1", b"abc").size - entry("/1").size == GROUP_OVERHEAD + 3
    many = [b"%d" % number for number in range(MAX_GROUPS)]
    assert entry("/1", *many).size > ENTRY_OVERHEAD + MAX_GROUPS * GROUP_OVERHEAD


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.lists(st.sampled_from("abcdef"), max_size=4), st.integers(0, 3000))))
def test_a_group_ends_exactly_what_is_kept_of_it_whatever_had_to_go(
    puts: list[tuple[int, list[str], int]],
) -> None:
    store = ResponseStore(20_000)
    for number, groups, size in puts:
        store.put(entry(f"/{number}", *(group.encode() for group in dict.fromkeys(groups)), body=size))
    for group in (b"a", b"b", b"c", b"d", b"e", b"f"):
        kept = [store.find_plain(f"shop /{number}".encode()) for number in range(31)]
        of_group = [one for one in kept if one is not None and group in (one.groups or ())]
        assert ended(store, [group], [], NOTHING) == len(of_group)


def test_what_was_made_before_it_ended_has_ended_and_what_was_made_later_has_not() -> None:
    endings = Endings(100.0)
    made = entry("/1", b"a")
    assert endings.ended(made, 100.0)
    assert not endings.ended(made, 101.0)
    for kind, name in ((GROUP, b"a"), (URL, b"/1"), (ROUTE, b"shop")):
        other = Endings(100.0)
        other.end(kind, [name], 110.0)
        assert other.ended(made, 110.0)
        assert not other.ended(made, 110.1)
        assert not other.ended(entry("/2", b"b", route="other"), 105.0)
    endings.end_all(120.0)
    assert endings.ended(made, 119.0)
    assert not endings.ended(made, 121.0)


def test_of_too_many_names_the_oldest_are_forgotten_and_count_as_ended() -> None:
    endings = Endings(0.0)
    for number in range(MOST + 10):
        endings.end(GROUP, [b"%d" % number], 1.0 + number)
    assert endings.ended(entry("/1"), 10.0)
    assert not endings.ended(entry("/1"), 10.5)
    assert endings.ended(entry("/1", b"%d" % (MOST + 9)), 1.0 + MOST)

"""What the store keeps: never more than it may, and what is wanted most. Pure; hypothesis against a simple model."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_gateway.worker.cache.entry import ENTRY_OVERHEAD, Entry
from toska_gateway.worker.cache.sketch import MOST, FrequencySketch
from toska_gateway.worker.cache.store import ResponseStore
from toska_gateway.worker.cache.tiny_lfu import TinyLfu
from toska_gateway.worker.cache.vary import variant_key
from toska_gateway.worker.http1 import RequestHead, read_request

CAPACITY = 10_000
KEYS = [f"k{number}".encode() for number in range(30)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, CAPACITY + 100)),
        st.tuples(st.just("get"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("remove"), st.sampled_from(KEYS), st.just(0)),
    ),
    max_size=200,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_never_holds_more_than_it_may_and_never_gives_what_was_not_put(steps: list[tuple[str, bytes, int]]) -> None:
    left: list[int] = []
    store: TinyLfu[int] = TinyLfu(CAPACITY, left.append)
    put: dict[bytes, tuple[int, int]] = {}  # what was put last under each key: a serial number, and its size
    for serial, (step, key, size) in enumerate(steps):
        if step == "put":
            put[key] = (serial, size)
            kept = store.put(key, serial, size)
            assert kept is (store.peek(key) == serial)
        elif step == "get":
            found = store.get(key)
            assert found is None or found == put[key][0]
        else:
            there = store.peek(key) is not None
            assert store.remove(key) is there
            assert store.peek(key) is None
        held = [key for key in KEYS if store.peek(key) is not None]
        assert store.used == sum(put[key][1] for key in held) <= CAPACITY
        assert len(store) == len(held)
    held_serials = {store.peek(key) for key in KEYS} - {None}
    assert held_serials.isdisjoint(left)
    assert len(left) == len(set(left))


def lru_hits(keys: Iterable[bytes], capacity: int) -> float:
    held: OrderedDict[bytes, None] = OrderedDict()
    hits = count = 0
    for key in keys:
        count += 1
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > capacity:
                held.popitem(last=False)
    return hits / count


def our_hits(keys: Iterable[bytes], capacity: int) -> float:
    size = 4096
    store: TinyLfu[bytes] = TinyLfu(capacity * size)
    hits = count = 0
    for key in keys:
        count += 1
        if store.get(key) is not None:
            hits += 1
        else:
            store.put(key, key, size)
    return hits / count


def zipf(count: int, keys: int, skew: float, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    weights = [1 / rank**skew for rank in range(1, keys + 1)]
    return [f"z{number}".encode() for number in draw.choices(range(keys), weights, k=count)]


def with_scans(count: int, seed: int) -> list[bytes]:
    """A crowd's requests, between which a crawler asks for everything once."""
    trace: list[bytes] = []
    for part in range(8):
        trace += zipf(count // 16, 2000, 0.9, seed + part)
        trace += [f"scan{part}-{number}".encode() for number in range(count // 16)]
    return trace


@pytest.mark.parametrize(
    ("trace", "capacity", "better_by"),
    [
        (lambda: zipf(60_000, 10_000, 0.9, 7), 200, 1.2),
        (lambda: zipf(60_000, 10_000, 0.7, 7), 500, 1.3),
        (lambda: with_scans(60_000, 7), 200, 1.15),
    ],
    ids=["zipf-0.9", "zipf-0.7", "scans"],
)
def test_it_hits_more_often_than_one_that_keeps_the_latest(
    trace: Callable[[], list[bytes]], capacity: int, better_by: float
) -> None:
    keys = trace()
    ours, lru = our_hits(keys, capacity), lru_hits(keys, capacity)
    assert ours > lru * better_by, (ours, lru)


def test_what_was_popular_yesterday_makes_room_for_what_is_today() -> None:
    store: TinyLfu[int] = TinyLfu(100 * 4096)
    for day in range(2):
        keys = [f"day{day}-{number}".encode() for number in range(80)]
        for turn in range(60):
            for key in keys:
                if store.get(key) is None:
                    store.put(key, turn, 4096)
    today = sum(store.peek(f"day1-{number}".encode()) is not None for number in range(80))
    assert today >= 70


def test_counts_err_only_upwards_and_grow_old() -> None:
    sketch = FrequencySketch(1000)
    draw = random.Random(3)
    counts = {draw.getrandbits(64): draw.randint(1, 20) for _ in range(500)}
    for fingerprint, count in counts.items():
        for _ in range(count):
            sketch.add(fingerprint)
    assert all(sketch.estimate(fingerprint) >= min(MOST, count) for fingerprint, count in counts.items())
    right = sum(sketch.estimate(fingerprint) == min(MOST, count) for fingerprint, count in counts.items())
    assert right > 450
    sketch.count(sketch.period)
    assert sketch.ages == 1
    assert all(sketch.estimate(fingerprint) <= MOST // 2 + 1 for fingerprint in counts)


# -- responses


def request(*fields: str) -> RequestHead:
    lines = "".join(f"{field}\r\n" for field in ("host: a", *fields))
    return read_request(f"GET / HTTP/1.1\r\n{lines}\r\n".encode(), 100, 8192)


PLAIN = request()


def stored(
    store: ResponseStore, url: bytes, head: RequestHead, *names: bytes, route: str = "r", user: bytes = b""
) -> Entry:
    entry = Entry()
    entry.primary = b"p" + url + user
    entry.vary = store.names_for(entry.primary, names)
    entry.key = variant_key(entry.primary, entry.vary, head) if entry.vary else entry.primary
    entry.url, entry.route = url, route
    entry.head, entry.body = b"head", b"body"
    store.put(entry)
    return entry


def test_an_entry_is_counted_with_all_that_it_takes() -> None:
    store = ResponseStore(1 << 20)
    entry = stored(store, b"u", PLAIN)
    assert store.used == entry.size > ENTRY_OVERHEAD + 8


def test_variants_are_found_by_the_fields_that_they_vary_by() -> None:
    store = ResponseStore(1 << 20)
    one = stored(store, b"u", request("x-a: 1"), b"x-a")
    two = stored(store, b"u", request("x-a: 2"), b"x-a")
    assert store.find(b"pu", request("x-a: 1")) is one
    assert store.find(b"pu", request("x-a: 2")) is two
    assert store.find(b"pu", request("x-a: 3")) is None


def test_what_varies_by_more_than_before_forgets_what_was_told_apart_by_less() -> None:
    store = ResponseStore(1 << 20)
    stored(store, b"u", request("x-a: 1"), b"x-a")
    new = stored(store, b"u", request("x-a: 1", "x-b: 1"), b"x-b")
    assert new.vary == (b"x-a", b"x-b")
    assert store.find(b"pu", request("x-a: 1")) is None
    assert store.find(b"pu", request("x-a: 1", "x-b: 1")) is new
    assert len(store) == 1


def test_what_comes_to_vary_is_no_longer_what_answers_everybody() -> None:
    store = ResponseStore(1 << 20)
    stored(store, b"u", PLAIN)
    stored(store, b"u", request("x-a: 1"), b"x-a")
    assert store.find(b"pu", PLAIN) is None
    assert len(store) == 1


def test_a_response_that_came_late_to_a_resource_that_varies_by_more_is_not_stored() -> None:
    store = ResponseStore(1 << 20)
    stored(store, b"u", request("x-a: 1", "x-b: 1"), b"x-a", b"x-b")
    late = Entry()
    late.primary, late.vary, late.key = b"pu", (b"x-a",), b"other"
    late.url, late.route, late.head, late.body = b"u", "r", b"", b""
    assert not store.put(late)
    assert len(store) == 1


def test_a_url_is_forgotten_with_all_users_and_variants_and_no_other() -> None:
    store = ResponseStore(1 << 20)
    stored(store, b"u", PLAIN, user=b"1")
    stored(store, b"u", request("x-a: 1"), b"x-a", user=b"2")
    stored(store, b"u", request("x-a: 2"), b"x-a", user=b"2")
    other = stored(store, b"v", PLAIN)
    assert store.forget_url(b"u") == 3
    assert store.forget_url(b"u") == 0
    assert store.find(b"pv", PLAIN) is other


def test_a_route_is_forgotten_and_no_other() -> None:
    store = ResponseStore(1 << 20)
    stored(store, b"u", PLAIN, route="a")
    kept = stored(store, b"v", PLAIN, route="b")
    assert store.forget_route("a") == 1
    assert store.find(b"pv", PLAIN) is kept
    assert store.forget_all() == 1
    assert store.used == 0


def test_a_smaller_store_keeps_what_fits() -> None:
    store = ResponseStore(1 << 20)
    for number in range(200):
        stored(store, b"u%d" % number, request("x-a: 1"), b"x-a")
    assert len(store) == 200
    store.resize(100_000)
    assert 50 < len(store) < 100
    assert store.used <= 100_000
    assert sum(store.forget_url(b"u%d" % number) for number in range(200)) > 50
    assert len(store) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([(), (b"x-a",), (b"x-a", b"x-b")]))))
def test_indexes_never_outlive_what_they_point_to(steps: list[tuple[int, int, tuple[bytes, ...]]]) -> None:
    store = ResponseStore(12_000)
    for url, value, names in steps:
        stored(store, b"u%d" % url, request(f"x-a: {value}", f"x-b: {value}"), *names)
        assert store.used <= 12_000
    for url in range(6):
        store.forget_url(b"u%d" % url)
    assert len(store) == 0
    assert not any(store.varies(b"pu%d" % url) for url in range(6))


def test_marks_of_what_is_not_stored_end_and_are_bounded() -> None:
    store = ResponseStore(1 << 20)
    store.mark_uncacheable(b"m", 100.0)
    assert store.is_uncacheable(b"m", 109.9)
    assert not store.is_uncacheable(b"m", 110.0)
    for number in range(20_000):
        store.mark_uncacheable(b"%d" % number, 100.0)
    assert sum(store.is_uncacheable(b"%d" % number, 101.0) for number in range(20_000)) <= 8192
    store.mark_uncacheable(b"m", 100.0)
    store.mark_cacheable(b"m")
    assert not store.is_uncacheable(b"m", 101.0)

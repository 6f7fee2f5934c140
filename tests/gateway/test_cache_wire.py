"""Stored responses as bytes: they come back as they were, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.wire import Damaged, pack, unpack


def an_entry() -> Entry:
    entry = Entry()
    entry.key, entry.primary, entry.url, entry.route = b"k\x00\xff", b"p\x00\xfe", b"http\0h\0/\0", "route"
    entry.vary, entry.status = (b"x-a", b"x-b"), 200
    entry.head, entry.body = b"HTTP/1.1 200 OK\r\na: b\r\n", b"\x00body\n\xff"
    entry.etag, entry.last_modified = b'W/"\xe4"', None
    entry.born_at, entry.lifetime_s = 990.0, 60.0
    entry.stale_while_revalidate_s, entry.stale_if_error_s = 1.5, 2.5
    entry.no_cache = entry.for_cookies = False
    entry.must_revalidate = entry.immutable = entry.for_authorized = True
    return entry


def test_an_entry_comes_back_as_it_was_and_as_old_as_it_is() -> None:
    entry = an_entry()
    read, stored_at = unpack(pack(entry, 1000.0, 5_000_000.0), 77.0, 5_000_020.0)
    assert stored_at == 5_000_000.0
    assert 77.0 - read.born_at == pytest.approx(30.0)
    for name in Entry.__slots__:
        if name not in ("born_at", "hit"):
            assert getattr(read, name) == getattr(entry, name), name


def test_an_entry_from_a_clock_ahead_of_ours_is_not_younger_than_new() -> None:
    read, _ = unpack(pack(an_entry(), 990.0, 5_000_000.0), 77.0, 4_000_000.0)
    assert read.born_at == 77.0


@given(st.integers(0), st.binary(min_size=1, max_size=1))
def test_a_changed_byte_is_noticed(at: int, byte: bytes) -> None:
    data = pack(an_entry(), 1000.0, 5_000_000.0)
    at %= len(data)
    changed = data[:at] + byte + data[at + 1 :]
    if changed != data:
        with pytest.raises(Damaged):
            unpack(changed, 0.0, 0.0)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_entry(data: bytes) -> None:
    with pytest.raises(Damaged):
        unpack(data, 0.0, 0.0)

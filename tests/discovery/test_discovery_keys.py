"""Keys and values: what random lives (test_discovery_properties) are too short to come upon."""

import pytest
from toska_discovery.kv import KeyValues
from toska_tests.keys import delete, delete_below, put


def test_a_prefix_does_not_go_back_when_its_tombstone_is_forgotten() -> None:
    keys = KeyValues(max_tombstones=2)
    put(keys, "a/kept", b"", 0, 1)
    put(keys, "a/gone", b"", 0, 2)
    delete(keys, "a/gone", 3)
    assert keys.list_below("a/")[1] == 3
    for index in range(4, 10, 2):
        put(keys, f"b/{index}", b"", 0, index)
        delete(keys, f"b/{index}", index + 1)
    assert keys.list_below("a/")[1] >= 3


@pytest.mark.parametrize("prefix", ["", "a", "a/"])
def test_after_a_restart_no_prefix_has_an_older_index_than_the_restarts(prefix: str) -> None:
    before = KeyValues()
    put(before, "a/b", b"", 0, 5)
    entry = before.find("a/b")
    assert entry is not None
    restarted = KeyValues()
    restarted.load([entry], 100)
    assert restarted.list_below(prefix)[1] == 100
    assert restarted.index_of("a/b") == 5
    assert restarted.index_of("none") == 100


def test_ten_thousand_keys_below_one_prefix_are_listed_and_removed_among_as_many_others() -> None:
    keys = KeyValues()
    for number in range(10_000):
        put(keys, f"a/{number:05}", b"", 0, number + 1)
        put(keys, f"b/{number:05}", b"", 0, number + 1)
    entries, _ = keys.list_below("a/")
    assert [entry.key for entry in entries] == [f"a/{number:05}" for number in range(10_000)]
    assert len(delete_below(keys, "a/", 20_000)) == 10_000
    assert len(keys) == 10_000
    assert keys.list_below("a/") == ([], 20_000)

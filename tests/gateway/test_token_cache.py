"""What a worker remembers of tokens: bounded in number and bytes, with what is in use in it."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.auth.token_cache import TokenCache, cost_of
from toska_gateway.worker.auth.verifier import Bearer


def bearer() -> Bearer:
    return cast("Bearer", object())


def find(cache: TokenCache, key: bytes) -> Bearer | None:
    return cache.young.get(key) or cache.find_old(key)


def test_what_is_used_stays_while_others_come_and_go() -> None:
    cache, mine = TokenCache(max_tokens=10), bearer()
    cache.put(b"mine", mine)
    for number in range(1000):
        cache.put(b"%d" % number, bearer())
        if number % 5 == 0:
            assert find(cache, b"mine") is mine
    assert len(cache) <= 20
    assert find(cache, b"0") is None


@given(st.lists(st.tuples(st.sampled_from(["put", "find", "drop"]), st.integers(0, 30), st.integers(0, 2000))))
def test_neither_number_nor_bytes_go_over_their_bounds(steps: list[tuple[str, int, int]]) -> None:
    cache = TokenCache(max_tokens=5, max_bytes=20_000)
    for step, number, size in steps:
        key = b"%d:" % number + b"x" * size
        if step == "put":
            cache.put(key, bearer())
            assert find(cache, key) is not None
        elif step == "find":
            find(cache, key)
        else:
            cache.drop(key)
            assert find(cache, key) is None
        assert len(cache.young) <= 5
        assert sum(map(cost_of, map(len, cache.young))) <= 20_000
        assert len(cache) <= 10

"""Parts of a split by key: shares by weight, and as few keys as possible that move when weights change."""

from collections import Counter
from collections.abc import Mapping

import pytest
from toska_common.balancing.rendezvous import Rendezvous

KEYS = [b"user-%d" % number for number in range(20_000)]


def parts_of(weights: Mapping[str, float]) -> list[str]:
    """The part of each key."""
    split = Rendezvous(list(weights), list(weights.values()))
    return [split.pick(key) for key in KEYS]


def moves(before: Mapping[str, float], after: Mapping[str, float]) -> Counter[tuple[str, str]]:
    """How many keys move from which part to which."""
    pairs = zip(parts_of(before), parts_of(after), strict=True)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def test_shares_are_those_of_the_weights() -> None:
    counts = Counter(parts_of({"a": 70, "b": 25, "c": 5, "off": 0}))
    assert counts["off"] == 0
    for name, share in (("a", 0.7), ("b", 0.25), ("c", 0.05)):
        deviation = (share * (1 - share) * len(KEYS)) ** 0.5
        assert abs(counts[name] - share * len(KEYS)) < 6 * deviation


@pytest.mark.parametrize("after", [20, 50, 99])
def test_who_is_on_the_canary_stays_there_while_it_grows(after: int) -> None:
    moved = moves({"stable": 90, "canary": 10}, {"stable": 100 - after, "canary": after})
    assert list(moved) == [("stable", "canary")]
    assert abs(moved.total() / len(KEYS) - (after - 10) / 100) < 0.02


def test_back_from_half_to_a_tenth_only_those_leave_who_have_to() -> None:
    moved = moves({"stable": 50, "canary": 50}, {"stable": 90, "canary": 10})
    assert list(moved) == [("canary", "stable")]


def test_a_part_that_comes_takes_from_the_others_and_moves_nobody_among_them() -> None:
    assert {to for _, to in moves({"a": 3, "b": 2}, {"a": 3, "b": 2, "c": 1})} == {"c"}
    assert {of for of, _ in moves({"a": 3, "b": 2, "c": 1}, {"a": 3, "b": 2, "c": 0})} == {"c"}


def test_neither_the_order_of_the_parts_nor_the_scale_of_the_weights_matters() -> None:
    assert moves({"a": 3, "b": 2, "c": 1}, {"c": 10, "a": 30, "b": 20}) == Counter()


def test_places_are_the_same_in_every_release() -> None:
    split = Rendezvous(["stable", "canary"], [1, 1])
    assert [split.pick(b"%d" % number) for number in range(4)] == [
        "stable", "canary", "canary", "stable",
    ]  # fmt: skip

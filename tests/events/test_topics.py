"""Topics and patterns, as AMQP's topic exchanges have them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.errors import InvalidInput
from toska_common.events.topics import PatternSet, check_group, check_pattern, check_topic, is_ephemeral, matches


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("mesh.instance.registered", "mesh.instance.registered", True),
        ("mesh.instance.registered", "mesh.instance", False),
        ("mesh.*.registered", "mesh.instance.registered", True),
        ("mesh.*", "mesh.instance.registered", False),
        ("mesh.*", "mesh", False),
        ("mesh.#", "mesh", True),
        ("mesh.#", "mesh.instance.registered", True),
        ("mesh.#", "meshes.instance", False),
        ("#", "anything.at.all", True),
        ("#.registered", "registered", True),
        ("#.registered", "mesh.instance.registered", True),
        ("mesh.#.registered", "mesh.registered", True),
        ("mesh.#.a.#.b", "mesh.x.a.a.y.b", True),
        ("mesh.#.a.#.b", "mesh.x.b.a", False),
        ("*.#.*", "one", False),
        ("*.#.*", "one.two", True),
        ("#.#", "one", True),
    ],
)
def test_a_pattern_stands_for_topics(pattern: str, topic: str, expected: bool) -> None:
    assert matches(pattern, topic) is expected


_WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6).map(".".join)
_PATTERNS = st.lists(st.sampled_from(["a", "b", "c", "*", "#"]), min_size=1, max_size=6).map(".".join)


@given(pattern=_PATTERNS, topic=_WORDS)
def test_it_matches_what_a_regular_expression_of_it_matches(pattern: str, topic: str) -> None:
    parts = {"*": r"(?:[^.]+\.)", "#": r"(?:[^.]+\.)*"}
    expression = "".join(parts.get(word, rf"{word}\.") for word in pattern.split("."))
    assert matches(pattern, topic) is (re.fullmatch(expression, topic + ".") is not None)


def test_matching_takes_no_time_that_grows_with_the_number_of_hashes() -> None:
    assert not matches(".".join(["#", "a"] * 30), ".".join(["a"] * 28 + ["b"] * 20))


@pytest.mark.parametrize("topic", ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.#", "ü", "a" * 201, "a\n"])
def test_what_is_no_topic_is_refused_with_the_field(topic: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_topic(topic, field="type")
    assert refused.value.extensions["problems"][0]["field"] == "type"


@pytest.mark.parametrize("pattern", ["", "a*", "a.#b", "**", "a." * 101 + "a"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        check_pattern(pattern)
    assert check_pattern("a.*.#") == "a.*.#"


@pytest.mark.parametrize("group", ["", "-a", "a b", "a" * 81, "a#"])
def test_what_is_no_group_is_refused(group: str) -> None:
    with pytest.raises(InvalidInput):
        check_group(group)
    assert check_group("billing-2") == "billing-2"


def test_who_wants_a_topic_is_found_and_found_again_after_changes() -> None:
    wanted = PatternSet[str]()
    wanted.put("all", ("#",))
    wanted.put("both", ("a.*", "#.b"))
    assert wanted.matching("a.b") == ("all", "both")
    assert wanted.matching("c") == ("all",)
    wanted.put("c", ("c",))
    assert wanted.matching("c") == ("all", "c")
    wanted.drop("all")
    assert wanted.matching("c") == ("c",)
    assert list(wanted) == ["both", "c"]


def test_answers_are_remembered_for_a_bounded_number_of_topics() -> None:
    wanted = PatternSet[int](remembered=2)
    wanted.put(1, ("#",))
    assert all(wanted.matching(f"topic.{number}") == (1,) for number in range(10))


def test_only_topics_that_say_so_are_ephemeral() -> None:
    assert is_ephemeral("reply.orders.1")
    assert is_ephemeral("ephemeral.cursor.moved")
    assert not is_ephemeral("reply")
    assert not is_ephemeral("replying.orders")

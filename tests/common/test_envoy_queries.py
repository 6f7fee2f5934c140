"""Query parameters in Envoy's words: an expression for the target, which says what decoding the query says."""

import re
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.contracts.routing.matching import Conditions, ValueMatch
from toska_common.envoy.values import conditions, parameters

_TEXTS = st.text(alphabet="ab&=+% é;#/?\\", max_size=4)
_PAIRS = st.lists(st.tuples(st.sampled_from(["v", "w", "a b", "é"]), _TEXTS), max_size=3)


def _matches(wanted: dict[str, Any], query: str) -> bool:
    (matcher,) = conditions(Conditions(query={name: ValueMatch(**value) for name, value in wanted.items()}))
    found = re.fullmatch(matcher["string_match"]["safe_regex"]["regex"], f"/path?{query}" if query else "/path")
    return (found is not None) is not matcher.get("invert_match", False)


def _fits(kind: str, text: str, value: str) -> bool:
    match kind:
        case "exact":
            return value == text
        case "prefix":
            return value.startswith(text)
        case "suffix":
            return value.endswith(text)
        case _:
            return text in value


@given(pairs=_PAIRS, text=_TEXTS, kind=st.sampled_from(["exact", "prefix", "suffix", "contains"]), invert=st.booleans())
def test_a_parameter_fits_if_one_of_its_decoded_values_does(
    pairs: list[tuple[str, str]], text: str, kind: str, invert: bool
) -> None:
    if not text and kind != "exact":
        return
    for query in (urlencode(pairs), urlencode(pairs, quote_via=quote)):
        given_values = parse_qs(query, keep_blank_values=True).get("v", [])
        wanted = {"v": {kind: text, "invert": invert}}
        assert _matches(wanted, query) is (any(_fits(kind, text, one) for one in given_values) is not invert), query


@pytest.mark.parametrize(
    ("query", "there"),
    [("v", True), ("v=", True), ("a&v=1", True), ("%76=1", True), ("", False), ("vv=1", False), ("a=v", False)],
)
def test_a_parameter_is_there_or_is_not(query: str, there: bool) -> None:
    assert _matches({"v": {"present": True}}, query) is there
    assert _matches({"v": {"present": False}}, query) is not there


def test_an_expression_is_for_envoys_own_matcher() -> None:
    wanted = Conditions(query={"v": ValueMatch(regex="[0-9]+")})
    assert [*conditions(wanted)] == []
    assert parameters(wanted) == [{"name": "v", "string_match": {"safe_regex": {"regex": "[0-9]+"}}}]

"""`filter` expressions against a plain reading of what they mean, and against whatever else may come."""

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_discovery.consul.selectors import HEALTH_SERVICES, SERVICES
from toska_discovery.filters import InvalidFilter, compile_filter
from toska_discovery.filters.grammar import MAX_DEPTH, MAX_LENGTH
from toska_tests import expressions

WEB: dict[str, Any] = {"ID": "web-1", "Service": "web", "Tags": ["v1"], "Meta": {"env": "prod"}, "Port": 80}


@given(case=expressions.EXPRESSIONS, service=expressions.SERVICES)
@settings(max_examples=300, deadline=None)
def test_an_expression_keeps_what_a_plain_reading_of_it_keeps(case: expressions.Case, service: dict[str, Any]) -> None:
    text, meaning = case
    assert compile_filter(text, SERVICES)(service) == meaning(service)


@given(text=st.text(max_size=60) | expressions.GARBAGE | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=500, deadline=None)
def test_no_text_makes_the_parser_stumble(text: str) -> None:
    try:
        keep = compile_filter(text, SERVICES)
    except InvalidFilter as error:
        assert str(error)
    else:
        assert keep(WEB) in {True, False}


@given(pattern=st.text(max_size=20) | st.text(alphabet="a*+?(){}[]|^$.\\1,é-", max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_regular_expression_makes_the_evaluator_stumble(pattern: str) -> None:
    literal = f"`{pattern.replace('`', '')}`"
    try:
        assert compile_filter(f"ID matches {literal}", SERVICES)(WEB) in {True, False}
    except InvalidFilter as error:
        assert str(error).startswith("Failed to compile regular expression ")


@pytest.mark.parametrize(
    "text",
    [
        "(" * MAX_LENGTH,
        "(" * 4000 + "a == b",
        "not " * 2000 + "ID == x",
        " or ".join(["ID == x"] * 600),
        "Meta" + '["a"' * 1500,
        "Meta" + ".a" * 4000 + " == b",
        "ID == `" + "x" * 8000,
        "ID is " * 1300,
        "1" * 8000,
    ],
)
def test_long_expressions_take_no_long_time(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(InvalidFilter):
        compile_filter(text, SERVICES)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "a?" * 60 + "a" * 60])
def test_a_regular_expression_cannot_be_made_to_run_long(pattern: str) -> None:
    keep = compile_filter(f"ID matches `{pattern}`", SERVICES)
    began = time.process_time()
    keep({**WEB, "ID": "a" * 50_000 + "!"})
    assert time.process_time() - began < 1.0


def test_a_regular_expression_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(InvalidFilter, match="pattern too large"):
        compile_filter("ID matches `" + "(\\pL{900})" * 20 + "`", SERVICES)


def test_the_length_and_the_nesting_of_an_expression_are_bounded() -> None:
    deep = "(" * (MAX_DEPTH - 1) + "ID == x" + ")" * (MAX_DEPTH - 1)
    assert not compile_filter(deep, SERVICES)(WEB)
    with pytest.raises(InvalidFilter, match="nested deeper"):
        compile_filter("(" * 200 + "ID == x" + ")" * 200, SERVICES)
    with pytest.raises(InvalidFilter, match="longer than"):
        compile_filter("ID == `" + "x" * MAX_LENGTH + "`", SERVICES)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Checks.Status == critical", True),
        ("not Checks.Status == passing", False),
        ("Checks.Status != passing", True),
        ("Checks.ServiceTags contains v1", True),
        ("Checks is empty", False),
        ("Service.Proxy.Upstreams.LocalBindPort != 1", False),
        ('Service.TaggedAddresses.wan.Address == ""', False),
        ("Service.TaggedAddresses.lan.Port == 80", True),
        ("Service.TaggedAddresses.wan.Port != 80", True),
        ('Service.Address == ""', True),
        ("Service.Meta.none matches `.*`", False),
        ("Service.Meta.none not matches `.*`", True),
    ],
)
def test_a_question_about_a_list_asks_for_any_of_it_and_what_is_missing_is_empty(text: str, kept: bool) -> None:
    entry: dict[str, Any] = {
        "Service": {**WEB, "TaggedAddresses": {"lan": {"Address": "::1", "Port": 80}}},
        "Checks": [{"Status": "passing", "ServiceTags": []}, {"Status": "critical", "ServiceTags": ["v1"]}],
    }
    assert compile_filter(text, HEALTH_SERVICES)(entry) is kept

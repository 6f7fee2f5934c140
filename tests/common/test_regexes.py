"""Operators' regular expressions: the whole text has to fit, and no pattern takes long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.regexes import InvalidRegex, Regex, Replacement


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        (r"/users/(\d+)", [b"/users/1"], [b"/users/1/", b"x/users/1", b"/users/"]),
        (r"/a|/b", [b"/a", b"/b"], [b"/ab", b"/a/b"]),
        (r"/caf.{2}", ["/café".encode(), b"/cafes"], [b"/cafe", "/caféé".encode()]),
        (r"/é+", ["/é".encode()], [b"/e"]),
        (r"(?i)/a", [b"/A"], [b"/B"]),
        (r".*", [b"", b"/\xff\x01\xe9"], [b"a\nb"]),
    ],
)
def test_the_whole_text_has_to_fit(pattern: str, fits: list[bytes], fits_not: list[bytes]) -> None:
    regex = Regex(pattern)
    assert all(regex.fits(text) for text in fits)
    assert not any(regex.fits(text) for text in fits_not)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"/a(", "missing )"),
        (r"(?=x)", "(?="),
        (r"(a)\1", "1"),
        ("a" * 100_000, "too large"),
        ("\ud800", "UTF-8"),
    ],
)
def test_what_is_no_pattern_of_re2_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidRegex) as caught:
        Regex(pattern)
    assert reason in str(caught.value)


def test_a_pattern_that_others_choke_on_takes_no_time() -> None:
    regex = Regex(r"(/(a+)+)+b")
    text = b"/" + b"a" * 5000
    started = time.process_time()
    assert not regex.fits(text)
    assert time.process_time() - started < 0.1


def test_a_replacement_takes_groups_by_number_and_by_name() -> None:
    regex = Regex(r"/(?P<shop>[^/]+)/(\d+)(/x)?")
    captures = regex.captures(b"/tea/12")
    assert captures is not None
    assert Replacement(r"/v2/\2/\g<shop>\3/\0\\1", regex).expand(captures) == b"/v2/12/tea//tea/12\\1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"/\2", r"\2 refers to a group"),
        (r"/\g<b>", r"\g<b> refers to a group"),
        ("/\\", "no reference"),
        (r"/\n", "no reference"),
        (r"/\g<", "no reference"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRegex, match="refer") as caught:
        Replacement(text, Regex(r"/(?P<a>x)"))
    assert reason in str(caught.value)


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "/", ".", r"\d", "[ab]", r"\.", "/a/b"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


@given(pattern=PATTERNS, text=st.text("ab/.1", max_size=8).map(str.encode))
def test_all_that_fits_begins_with_the_prefix(pattern: str, text: bytes) -> None:
    regex = Regex(pattern)
    assert not regex.fits(text) or text.startswith(regex.prefix)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [(r"/users/(\d+)", b"/users/"), (r"/a|/b", b"/"), (r"/shop\.x/?", b"/shop.x"), (r".*", b""), ("/ab", b"/ab")],
)
def test_the_prefix_is_as_long_as_it_is_known(pattern: str, prefix: bytes) -> None:
    assert Regex(pattern).prefix == prefix

"""The rules of RFC 9111 as tables: what is stored, for how long, and what it is good for. Pure."""

from typing import Any

import pytest
from toska_gateway.worker.cache.dates import read_date, write_date
from toska_gateway.worker.cache.directives import (
    MAX_SECONDS,
    read_request_directives,
    read_response_directives,
)
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.freshness import FreshnessRules, initial_age
from toska_gateway.worker.cache.selection import Use, judge, may_stand_in
from toska_gateway.worker.cache.storing import Circumstances, StoringRules, build_entry, frame, updated_parts
from toska_gateway.worker.cache.vary import read_vary, variant_key
from toska_gateway.worker.http1 import read_request

WALL = 1_700_000_000.0
"""The present, in seconds since 1970."""
NOW = 1000.0
"""The same on the monotonic clock."""
DATE = write_date(WALL).decode()


def head(*fields: str, status: int = 200, date: str | None = DATE) -> list[bytes]:
    lines = [*fields, *([f"date: {date}"] if date is not None else [])]
    return [f"HTTP/1.1 {status} Fine\r\n".encode(), *(line.encode() + b"\r\n" for line in lines)]


def build(
    *fields: str,
    status: int = 200,
    rules: StoringRules | None = None,
    authorized: bool = False,
    cookies: bool = False,
    date: str | None = DATE,
) -> Entry | str:
    told = Circumstances(authorized, cookies, WALL, WALL, NOW)
    return build_entry(status, head(*fields, status=status, date=date), told, rules or StoringRules())


def entry(*fields: str, body: bytes = b"hello", **more: Any) -> Entry:
    found = build(*fields, **more)
    assert isinstance(found, Entry), found
    found.key = found.primary = found.url = b"k"
    found.route = "all"
    frame(found, body)
    return found


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["cache-control: private, max-age=60"], "private"),
        (['cache-control: private="x-a", max-age=60'], "private"),
        (["cache-control: no-store, max-age=60"], "no-store"),
        (["cache-control: max-age=60", "cache-control: no-store"], "no-store"),
        (["cache-control: max-age=60, @@@"], "no-store"),
        (['cache-control: max-age=60, x="unclosed'], "no-store"),
        (["cache-control: max-age=60", "set-cookie: a=1"], "set-cookie"),
        (["cache-control: public, max-age=60", "Set-Cookie: a=1"], "set-cookie"),
        (["cache-control: max-age=60", "vary: *"], "vary"),
        (["cache-control: max-age=60", "vary: accept, *"], "vary"),
        (["cache-control: max-age=60", "vary: a b"], "vary"),
        (["cache-control: max-age=60", "content-range: bytes 0-1/2"], "partial"),
        (["cache-control: max-age=0"], "not-fresh"),
        (["cache-control: max-age=-1"], "not-fresh"),
        (["cache-control: max-age=60.5"], "not-fresh"),
        (["cache-control: max-age=60, max-age=0"], "not-fresh"),
        (["cache-control: no-cache, max-age=60"], "not-fresh"),
        (['cache-control: no-cache="set-cookie", max-age=60'], "not-fresh"),
        (["cache-control: s-maxage=0, max-age=60"], "not-fresh"),
        (["expires: 0"], "not-fresh"),
        (["expires: Thu, 01 Jan 1970 00:00:00 GMT"], "not-fresh"),
        (["cache-control: max-age=60", "age: 60"], "not-fresh"),
        ([], "no-lifetime"),
        (["cache-control: public"], "no-lifetime"),
    ],
)
def test_what_may_not_be_kept_is_not(fields: list[str], reason: str) -> None:
    assert build(*fields) == reason


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        (["cache-control: max-age=60"], 60),
        (["cache-control: MAX-AGE=60"], 60),
        (['cache-control: max-age="60"'], 60),
        (["cache-control: max-age=60, s-maxage=90"], 90),
        (["cache-control: ,, max-age=60 ,"], 60),
        (["cache-control: max-age=60, unknown, other=1"], 60),
        (["cache-control: max-age=99999999999999999999"], MAX_SECONDS),
        (["cache-control: max-age=60", f"expires: {write_date(WALL + 5).decode()}"], 60),
        ([f"expires: {write_date(WALL + 30).decode()}"], 30),
        (["cache-control: no-store, must-understand, max-age=60"], 60),
        (["cache-control: no-cache, max-age=60", 'etag: "a"'], 60),
        (["cache-control: max-age=0", 'etag: "a"'], 0),
    ],
)
def test_what_may_be_kept_lives_as_long_as_it_says(fields: list[str], lifetime: float) -> None:
    assert entry(*fields).lifetime_s == lifetime


@pytest.mark.parametrize("status", [206, 100, 304, 418, 429, 500, 502, 503, 504])
def test_other_statuses_are_not_kept(status: int) -> None:
    assert build("cache-control: max-age=60", status=status) == "status"


def test_partial_content_is_not_kept_even_if_an_operator_asks_for_it() -> None:
    assert build("cache-control: max-age=60", status=206, rules=StoringRules(statuses=frozenset({206}))) == "status"


@pytest.mark.parametrize(
    ("control", "kept"),
    [
        ("max-age=60", False),
        ("max-age=60, proxy-revalidate", False),
        ("max-age=60, public", True),
        ("max-age=60, must-revalidate", True),
        ("s-maxage=60", True),
        ("public, private, max-age=60", False),
        ("public, no-store, max-age=60", False),
    ],
)
def test_answers_to_requests_with_authorization_are_kept_only_if_they_say_so(control: str, kept: bool) -> None:
    assert isinstance(build(f"cache-control: {control}", authorized=True), Entry) is kept


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (["cache-control: max-age=60"], False),
        (["cache-control: max-age=60, must-revalidate"], False),
        (["cache-control: max-age=60, public"], True),
        (["cache-control: s-maxage=60"], True),
        (["cache-control: max-age=60", "vary: Cookie"], True),
        (["cache-control: max-age=60", "vary: accept"], False),
    ],
)
def test_answers_to_requests_with_cookies_are_kept_only_if_they_say_so(fields: list[str], kept: bool) -> None:
    assert isinstance(build(*fields, cookies=True), Entry) is kept
    assert isinstance(build(*fields, cookies=True, rules=StoringRules(cookies_harmless=True)), Entry)


def test_what_anonymous_requests_were_given_is_marked_as_not_for_those_with_credentials() -> None:
    plain, public = entry("cache-control: max-age=60"), entry("cache-control: public, max-age=60")
    assert (plain.for_authorized, plain.for_cookies) == (False, False)
    assert (public.for_authorized, public.for_cookies) == (True, True)


def test_cookies_are_never_part_of_what_is_kept() -> None:
    rules = StoringRules(strip_set_cookie=True)
    kept = entry("cache-control: public, max-age=60", "Set-Cookie: sid=secret", "x-a: 1", rules=rules)
    assert b"x-a: 1" in kept.head
    assert b"cookie" not in kept.head.lower()


def test_age_and_length_are_written_anew() -> None:
    kept = entry("cache-control: max-age=60", "age: 7", "x-a: 1", body=b"hello!")
    assert b"age: 7" not in kept.head
    assert kept.head.count(b"content-length: 6\r\n") == 1
    assert kept.ttl(NOW) == 53


def test_a_response_without_a_date_gets_that_of_its_arrival() -> None:
    kept = entry("cache-control: max-age=60", date=None)
    assert f"date: {DATE}".encode() in kept.head
    kept = entry("cache-control: max-age=60", date="yesterday")
    assert f"date: {DATE}".encode() in kept.head
    assert b"yesterday" not in kept.head


@pytest.mark.parametrize(
    ("fields", "status", "rules", "lifetime"),
    [
        ([], 200, FreshnessRules(default_ttl_s=5), 5),
        (["cache-control: max-age=60"], 200, FreshnessRules(default_ttl_s=5), 60),
        ([], 301, FreshnessRules(default_ttl_s=5), 5),
        ([], 404, FreshnessRules(default_ttl_s=5), None),
        ([], 302, FreshnessRules(default_ttl_s=5), None),
        ([f"last-modified: {write_date(WALL - 1000).decode()}"], 200, FreshnessRules(heuristic_ratio=0.1), 100),
        ([f"last-modified: {write_date(WALL - 1000).decode()}"], 200, FreshnessRules(), 0),
        (
            [f"last-modified: {write_date(WALL - 9e6).decode()}"],
            404,
            FreshnessRules(heuristic_ratio=0.1, heuristic_max_s=50),
            50,
        ),
    ],
)
def test_what_says_nothing_of_its_life_lives_as_the_operator_says(
    fields: list[str], status: int, rules: FreshnessRules, lifetime: float | None
) -> None:
    found = build(*fields, status=status, rules=StoringRules(freshness=rules))
    if lifetime is None:
        assert isinstance(found, str)
    else:
        assert isinstance(found, Entry)
        assert found.lifetime_s == pytest.approx(lifetime)


@pytest.mark.parametrize(
    ("age", "date", "requested", "expected"),
    [
        ((), WALL, WALL, 0),
        ((), WALL - 10, WALL, 10),
        ((), WALL + 10, WALL, 0),
        ((b"5",), WALL, WALL, 5),
        ((b"5",), WALL - 10, WALL, 10),
        ((b"5",), WALL, WALL - 2, 7),
        ((b"5, 9",), WALL, WALL, 9),
        ((b"5", b"9"), WALL, WALL, 9),
        ((b"x",), WALL, WALL, 0),
        ((b"-5",), WALL, WALL, 0),
        ((b"9" * 30,), WALL, WALL, MAX_SECONDS),
    ],
)
def test_age_is_the_greater_of_what_is_said_and_what_is_seen(
    age: tuple[bytes, ...], date: float, requested: float, expected: float
) -> None:
    assert initial_age(age, date, requested, WALL) == expected


FRESH, STALE = NOW + 30, NOW + 70
"""Of a response that lives 60 seconds."""


@pytest.mark.parametrize(
    ("response", "request_", "at", "use"),
    [
        ("max-age=60", None, FRESH, Use.HIT),
        ("max-age=60", None, NOW + 59.9, Use.HIT),
        ("max-age=60", None, NOW + 60, Use.VALIDATE_STALE),
        ("max-age=60", "no-cache", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "max-age=0", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "max-age=29", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "max-age=30", FRESH, Use.HIT),
        ("max-age=60", "max-age=x", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "min-fresh=30", FRESH, Use.HIT),
        ("max-age=60", "min-fresh=31", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "min-fresh=x", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60", "max-stale", STALE, Use.HIT),
        ("max-age=60", "max-stale=10", STALE, Use.HIT),
        ("max-age=60", "max-stale=9", STALE, Use.VALIDATE_STALE),
        ("max-age=60, must-revalidate", "max-stale", STALE, Use.VALIDATE_STALE),
        ("max-age=60, proxy-revalidate", "max-stale", STALE, Use.VALIDATE_STALE),
        ("max-age=60, no-cache", None, FRESH, Use.VALIDATE_STALE),
        ("max-age=60, no-cache", "max-stale", STALE, Use.VALIDATE_STALE),
        ("max-age=60, immutable", "max-age=0", FRESH, Use.HIT),
        ("max-age=60, immutable", "no-cache", FRESH, Use.VALIDATE_ASKED),
        ("max-age=60, immutable", "max-age=0", STALE, Use.VALIDATE_ASKED),
        ("max-age=60, stale-while-revalidate=11", None, STALE, Use.WHILE_REVALIDATING),
        ("max-age=60, stale-while-revalidate=10", None, STALE, Use.VALIDATE_STALE),
        ("max-age=60, stale-while-revalidate=11", "max-age=60", STALE, Use.VALIDATE_ASKED),
        ("max-age=60, stale-while-revalidate=11, must-revalidate", None, STALE, Use.VALIDATE_STALE),
        ("s-maxage=60, stale-while-revalidate=11", None, STALE, Use.WHILE_REVALIDATING),
        ("max-age=60", "@@@", FRESH, Use.VALIDATE_ASKED),
    ],
)
def test_what_a_stored_response_is_good_for(response: str, request_: str | None, at: float, use: Use) -> None:
    stored = entry(f"cache-control: {response}", 'etag: "a"')
    asked = read_request_directives(None if request_ is None else request_.encode())
    assert judge(stored, asked, at) is use


def test_an_operators_wish_for_stale_responses_does_not_stand_against_the_origins() -> None:
    rules = StoringRules(stale_while_revalidate_s=100, stale_if_error_s=100)
    nothing = read_request_directives(None)
    for control, stale in (
        ("max-age=60", True),
        ("max-age=60, stale-while-revalidate=0, stale-if-error=0", False),
        ("s-maxage=60", False),
        ("max-age=60, must-revalidate", False),
        ("max-age=60, no-cache", False),
    ):
        stored = entry(f"cache-control: {control}", 'etag: "a"', rules=rules)
        assert (judge(stored, nothing, STALE) is Use.WHILE_REVALIDATING) is stale, control
        assert may_stand_in(stored, nothing, STALE) is stale, control


def test_a_stale_response_stands_in_for_an_error_for_as_long_as_either_side_says() -> None:
    stored = entry("cache-control: max-age=60, stale-if-error=5")
    asked = read_request_directives
    assert may_stand_in(stored, asked(None), NOW + 64)
    assert not may_stand_in(stored, asked(None), NOW + 65)
    assert may_stand_in(stored, asked(b"stale-if-error=20"), NOW + 79)
    assert not may_stand_in(stored, asked(b"no-cache"), NOW + 64)


def test_after_a_failure_nobody_waits_for_the_next_one() -> None:
    stored = entry("cache-control: max-age=60, stale-if-error=60")
    nothing = read_request_directives(None)
    stored.failed_until = STALE + 5
    assert judge(stored, nothing, STALE) is Use.WHILE_REVALIDATING
    assert judge(stored, nothing, STALE + 5) is Use.VALIDATE_STALE
    assert judge(stored, read_request_directives(b"max-age=60"), STALE) is Use.VALIDATE_ASKED
    stored.failed_until = NOW + 999
    assert judge(stored, nothing, NOW + 120) is Use.VALIDATE_STALE


def test_pragma_counts_only_where_there_is_no_cache_control() -> None:
    assert read_request_directives(None, b"no-cache").no_cache
    assert not read_request_directives(b"max-age=5", b"no-cache").no_cache
    assert not read_request_directives(None, b"x").no_cache


def test_a_validation_replaces_what_it_speaks_of_and_nothing_else() -> None:
    stored = entry("cache-control: max-age=60", 'etag: "a"', "content-type: text/plain", "x-a: old", "x-b: old")
    news = head(
        "cache-control: max-age=90",
        'etag: "a"',
        "content-type: text/html",
        "content-length: 0",
        "content-encoding: gzip",
        "X-A: new",
        "set-cookie: sid=1",
        status=304,
    )
    lines = b"".join(updated_parts(stored, news))
    assert lines.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert b"max-age=90" in lines
    assert b"max-age=60" not in lines
    assert b"X-A: new" in lines
    assert b"x-a: old" not in lines
    assert b"x-b: old" in lines
    assert b"text/plain" in lines
    assert b"text/html" not in lines
    for absent in (b"set-cookie", b"content-encoding", b"content-length"):
        assert absent not in lines


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        (b"Sun Nov  6 08:49:37 1994", 784111777.0),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"Sun, 31 Feb 1994 08:49:37 GMT", None),
        (b"Sun, 00 Feb 1994 08:49:37 GMT", None),
        (b"0", None),
        (b"", None),
        (b"-1", None),
    ],
)
def test_dates_are_read_in_their_three_forms_and_no_other(value: bytes, seconds: float | None) -> None:
    assert read_date(value) == seconds


def _request(*fields: str) -> Any:
    lines = "".join(f"{field}\r\n" for field in ("host: a", *fields))
    return read_request(f"GET / HTTP/1.1\r\n{lines}\r\n".encode(), 100, 8192)


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("accept", ["Accept: a, b"], ["accept: a,b"], True),
        ("accept", ["Accept: a", "Accept: b"], ["accept: a , b"], True),
        ("accept", ["Accept: a"], ["Accept: b"], False),
        ("accept", ["Accept:"], [], False),
        ("accept", [], [], True),
        ("x-user", ["X-User: A"], ["X-User: a"], False),
        ("accept-encoding", ["Accept-Encoding: GZIP"], ["Accept-Encoding: gzip"], True),
        ("accept-language", ["Accept-Language: de-CH"], ["Accept-Language: de-ch"], True),
        ("cookie", ["Cookie: a=1"], ["Cookie: a=2"], False),
        ("authorization", ["Authorization: Bearer a"], ["Authorization: Bearer b"], False),
    ],
)
def test_requests_select_the_same_response_if_their_fields_mean_the_same(
    name: str, one: list[str], other: list[str], same: bool
) -> None:
    names = (name.encode(),)
    assert (variant_key(b"p", names, _request(*one)) == variant_key(b"p", names, _request(*other))) is same


def test_keys_hold_no_credentials() -> None:
    key = variant_key(b"p", (b"authorization", b"cookie"), _request("Authorization: Bearer secret", "Cookie: s=secret"))
    assert b"secret" not in key


def test_fields_that_vary_are_read_together() -> None:
    assert read_vary([b"Accept, X-B", b"x-a,accept"], frozenset()) == (b"accept", b"x-a", b"x-b")
    assert read_vary([b"Accept, User-Agent"], frozenset({b"user-agent"})) == (b"accept",)
    assert read_vary([], frozenset()) == ()


def test_numbers_that_are_none_make_a_response_stale_and_not_immortal() -> None:
    for value in (b"max-age", b"max-age=", b"max-age=1e3", b"max-age=\xb2"):
        read = read_response_directives(value)
        assert read.no_store or read.max_age == 0, value

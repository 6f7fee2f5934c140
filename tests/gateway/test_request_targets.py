"""Reading a request's target: what is refused, and the one form that a path comes to."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from toska_gateway.worker.http1 import (
    BadMessage,
    encode_path,
    normalize_path,
    unescape_slashes,
)
from toska_tests.request_heads import read, refusal


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "a",
        "test:80",
        "?a=b",
        "http:/a",
        "http://",
        "http:///a",
        "http://user@test/a",
        "http://user:pw@test/a",
        "ftp://test/a",
        "http://te st/",
        "http://test#a",
        "http://test:99999/",
        "http://te<st/",
        "http://[::1/",
        "/a#b",
        "/a?b#c",
        "/a\\b",
        "/a%00b",
        "/a%0ab",
        "/a%0Db",
        "/a%7fb",
        "/a%1fb",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%+1",
        "/a\x01",
        "/a\x7f",
        "/a\x80",
        "/a\xff?b",
        "/a?b\x01",
        "/a?b\x7f",
        "/a?b\xe9",
    ],
)
def test_a_malformed_target_is_a_bad_request(target: str) -> None:
    assert refusal(f"GET {target} HTTP/1.1") == 400


def test_escaped_slashes_are_kept_apart_from_slashes_for_the_routes_that_take_them() -> None:
    for target in ("/a%2fb", "/a%2Fb", "/a/%5c", "/%2F%2F", "/a%2f..b"):
        head = read(f"GET {target} HTTP/1.1")
        assert head.escaped
        assert head.path.count(b"/") == target.count("/")
        assert encode_path(head.path) == target.replace("f", "F").replace("c", "C").encode()
    assert not read("GET /a%252fb HTTP/1.1").escaped
    assert read("GET /a%252fb HTTP/1.1").path == b"/a%2fb"
    assert read("GET /x/../a%2fb/./c HTTP/1.1").path == read("GET /a%2fb/c HTTP/1.1").path


@pytest.mark.parametrize(
    "target", ["/a/..%2fb", "/a%2f..", "/%2e%2e%5cb", "/a/%2f.", "/.%2F", "/a%5c.%2fb", "/a%2fb/../c"]
)
def test_an_escaped_slash_beside_a_dot_segment_is_a_bad_request(target: str) -> None:
    assert refusal(f"GET {target} HTTP/1.1") == 400


def test_options_of_the_server_as_a_whole_are_understood() -> None:
    for target in ("*", "http://other", "HTTPS://other:81"):
        head = read(f"OPTIONS {target} HTTP/1.1")
        assert (head.path, head.query) == (b"*", b"")
        assert encode_path(head.path) == b"*"
    assert read("OPTIONS http://other HTTP/1.1").host == b"other"
    for target in ("http://other/", "http://other?a"):
        assert read(f"OPTIONS {target} HTTP/1.1").path == b"/"
    assert refusal("OPTIONS ** HTTP/1.1") == 400
    assert refusal("OPTIONS * HTTP/1.1", host="a b") == 400


def test_a_target_over_the_limit_is_too_long() -> None:
    line = f"GET /{'a' * 8191} HTTP/1.1"
    assert read(line).path == b"/" + b"a" * 8191
    assert refusal(line.replace("/a", "/aa", 1)) == 414


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://other:81/a?b", b"/a", b"?b"),
        ("http://other:81", b"/", b""),
        ("HTTP://other:81/", b"/", b""),
        ("https://other:81?b=c", b"/", b"?b=c"),
        ("http://other:81/a/../b", b"/b", b""),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_the_host(target: str, path: bytes, query: bytes) -> None:
    head = read(f"GET {target} HTTP/1.1")
    assert (head.host, head.path, head.query) == (b"other:81", path, query)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/../..", "/"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/b//", "/a/b/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61", "/a"),
        ("/a%20b", "/a b"),
        ("/a%3fb", "/a?b"),
        ("/a%23b", "/a#b"),
        ("/a%25b", "/a%b"),
        ("/%252e%252e/a", "/%2e%2e/a"),
        ("/a/..;/b", "/a/..;/b"),
        ("/a;b=c/../d", "/d"),
        ("/...", "/..."),
        ("/a..", "/a.."),
        ("/%C3%A9", "/\xc3\xa9"),
    ],
)
def test_paths_have_one_normal_form(given: str, normal: str) -> None:
    path = read(f"GET {given} HTTP/1.1").path
    assert path == normal.encode("latin-1")
    # As it travels it reads the same again, so whoever is next sees what was matched.
    assert normalize_path(encode_path(path)) == path
    assert read(f"GET {encode_path(path).decode()} HTTP/1.1").path == path


@example("%a2")
@given(st.text("ab./%2e;?#\\ \x00\xe9", max_size=20))
def test_any_path_is_refused_or_comes_to_a_stable_normal_form(text: str) -> None:
    try:
        path = normalize_path(b"/" + text.encode("latin-1"))
    except BadMessage as error:
        assert error.status == 400
        return
    assert path.startswith(b"/")
    assert not {b".", b".."} & set(re.split(rb"[/\x01\x02]", path))
    assert normalize_path(encode_path(unescape_slashes(path))) == unescape_slashes(path)
    assert b"//" not in path
    assert not {b".", b".."} & set(path.split(b"/"))
    wire = encode_path(path)
    assert normalize_path(wire) == path
    assert not set(wire) & set(b" ?#\\\x00\r\n\xe9")


@pytest.mark.parametrize("unit", ["/a", "/.", "/..", "//", "%20", "/%2e", "a", "/a/..", ";"])
def test_no_path_takes_long_to_read(unit: str) -> None:
    started = time.process_time()
    read(f"GET /{unit * (8000 // len(unit))} HTTP/1.1")
    assert time.process_time() - started < 0.1

"""Reading a request's head: what is understood, what is refused and how, and that neither takes long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.http1 import (
    CHUNKED,
    BadMessage,
    fields,
    read_request,
    requests,
    targets,
)
from toska_tests.request_heads import passed_on, read, refusal


def test_a_plain_head_is_understood() -> None:
    head = read("GET /orders/1?b=%20 HTTP/1.1", "Accept:  text/html ", "X-Empty:", "Cookie:\ta=b\t")
    assert (head.method, head.path, head.query, head.host) == (b"GET", b"/orders/1", b"?b=%20", b"test")
    assert (head.http11, head.close, head.expect, head.upgrade, head.body_length) == (True, False, False, b"", 0)
    assert passed_on(head) == [b"Accept: text/html\r\n", b"X-Empty: \r\n", b"Cookie: a=b\r\n"]
    assert head.field(b"accept") == b"text/html"
    assert head.field(b"host") == b"test"
    assert head.field(b"x-none") is None


def test_lines_of_one_field_are_joined_for_matching() -> None:
    assert read("GET / HTTP/1.1", "X-A: 1", "x-a: 2").field(b"x-a") == b"1, 2"


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1\x00",
        "GET /",
        "GET",
        "",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/\tHTTP/1.1",
        "GET / HTTP/1.1x",
        "GET / http/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/11",
        "GET / RTSP/1.0",
        "GET / HTTP /1.1",
        "G@T / HTTP/1.1",
        "G\x7fT / HTTP/1.1",
        "(GET) / HTTP/1.1",
        "\x16\x03\x01 / HTTP/1.1",
        "GET / HTTP/1.1\nX: y",
        "GET / HTTP/1.1\rX: y",
    ],
)
def test_a_malformed_request_line_is_a_bad_request(line: str) -> None:
    assert refusal(line) == 400


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2", "HTTP/2.0", "HTTP/3", "HTTP/0.0"])
def test_other_versions_are_not_spoken(version: str) -> None:
    assert refusal(f"GET / {version}") == 505


@pytest.mark.parametrize("method", ["BREW", "get", "CONNECT", "PRI", "SOURCE", "M-SEARCH", "GETX"])
def test_a_method_that_is_not_known_is_not_implemented(method: str) -> None:
    assert refusal(f"{method} / HTTP/1.1") == 501


def test_more_fields_than_allowed_are_too_many_whatever_they_are() -> None:
    for name in ("X-A", "Via", "TE", "X_Forwarded_For"):
        assert read("GET / HTTP/1.1", *[f"{name}: 1"] * 99).host == b"test"
        assert refusal("GET / HTTP/1.1", *[f"{name}: 1"] * 100) == 431


@pytest.mark.parametrize(
    "line",
    [
        "X-A : 1",
        "X-A\t: 1",
        " X-A: 1",
        "\tfolded",
        ": 1",
        "X-A",
        "X A: 1",
        "X(A): 1",
        "X\x80A: 1",
        "X\x00A: 1",
        'X"A: 1',
        "X-A: 1\x00",
        "X-A: 1\x0b2",
        "X-A: 1\x7f",
        "X-A: 1\n folded",
        "X-A: 1\r\n folded",
        "X-A: 1\nX-B: 2",
        "X-A: 1\rX-B: 2",
        "X-A: 1\r",
        "X-A: \x1b[31m",
    ],
)
def test_a_malformed_field_line_is_a_bad_request(line: str) -> None:
    assert refusal("GET / HTTP/1.1", line) == 400


@pytest.mark.parametrize("host", ["", "a b", "a,b", "a/b", "a@b", "a:b", "a:", "a:123456", "a:65536", "[::1", "a\x80"])
def test_a_host_that_is_none_is_a_bad_request(host: str) -> None:
    assert refusal("GET / HTTP/1.1", host=host) == 400
    assert refusal("GET / HTTP/1.0", host=host) == 400
    assert refusal("GET http://good/ HTTP/1.1", host=host) == 400
    assert refusal("GET http://good/ HTTP/1.0", host=host) == 400


def test_a_request_has_exactly_one_host() -> None:
    assert refusal("GET / HTTP/1.1", host=None) == 400
    assert refusal("GET http://test/ HTTP/1.1", host=None) == 400
    for version in ("1.0", "1.1"):
        for target in ("/", "http://test/"):
            assert refusal(f"GET {target} HTTP/{version}", "Host: test") == 400
            assert refusal(f"GET {target} HTTP/{version}", "Host: other") == 400
    assert read("GET / HTTP/1.0", host=None).host == b""


@pytest.mark.parametrize("host", ["a", "a.b-c", "a:1", "127.0.0.1:8080", "[::1]", "[::1]:80", "a_b", "xn--a"])
def test_names_and_addresses_with_and_without_port_are_hosts(host: str) -> None:
    assert read("GET / HTTP/1.1", host=host).host == host.encode()


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1", "content-length: 2"],
        ["Content-Length: 1, 1"],
        ["Content-Length: 1,"],
        ["Content-Length: +1"],
        ["Content-Length: -1"],
        ["Content-Length: 0x1"],
        ["Content-Length: 1_0"],
        ["Content-Length: 1 0"],
        ["Content-Length: 1.0"],
        ["Content-Length: \xb2"],
        ["Content-Length:"],
        ["Content-Length: 9999999999999999999"],
        ["Content-Length: 18446744073709551617"],
        ["Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 1"],
        ["Transfer-Encoding: chunked", "Content-Length: 0"],
        ["Transfer-Encoding: gzip", "Content-Length: 1"],
        ["Transfer-Encoding:"],
        ["Transfer-Encoding: ,"],
        ["Transfer-Encoding: chunked,"],
        ["Transfer-Encoding: ,chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, gzip"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked;q=1"],
        ['Transfer-Encoding: "chunked"'],
        ["Transfer-Encoding: chunked\x0b"],
        ["Transfer-Encoding: chunk"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding: chu\r\n nked"],
    ],
)
def test_a_length_that_is_not_beyond_doubt_is_a_bad_request(fields: list[str]) -> None:
    assert refusal("POST / HTTP/1.1", *fields) == 400


def test_transfer_codings_besides_chunked_are_not_implemented() -> None:
    assert refusal("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked") == 501
    assert refusal("POST / HTTP/1.1", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked") == 501
    assert refusal("POST / HTTP/1.0", "Transfer-Encoding: chunked") == 400


@pytest.mark.parametrize(
    ("field", "length"),
    [
        ("Content-Length: 0", 0),
        ("Content-Length: 000012", 12),
        ("Content-Length:\t5 ", 5),
        ("Transfer-Encoding: chunked", CHUNKED),
        ("transfer-encoding:  CHUNKED\t", CHUNKED),
    ],
)
def test_a_plain_length_is_taken(field: str, length: int) -> None:
    head = read("POST / HTTP/1.1", field)
    assert head.body_length == length
    assert passed_on(head) == []


def test_an_old_request_without_a_host_is_framed_like_any_other() -> None:
    assert read("POST / HTTP/1.0", "Content-Length: 5", host=None).body_length == 5
    assert not read("GET / HTTP/1.0", "Connection: keep-alive", host=None).close
    assert refusal("POST / HTTP/1.0", "Content-Length: +5", host=None) == 400
    assert refusal("POST / HTTP/1.0", "Transfer-Encoding: chunked", host=None) == 400


def test_fields_for_this_hop_and_their_underscore_twins_are_not_passed_on() -> None:
    names = ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Proxy-Authorization", "HTTP2-Settings",
             "X-Forwarded-For", "X_Forwarded_For", "x-forwarded_proto", "X_Real_IP", "Forwarded", "X_Request_Id",
             "Content_Length", "Transfer_Encoding", "X-Toska-Caller", "X_Toska-Caller", "X_Consul_Token"]  # fmt: skip
    head = read("GET / HTTP/1.1", *[f"{name}: 1" for name in names], "X_Mine: 1")
    assert passed_on(head) == [b"X_Mine: 1\r\n"]


def test_fields_that_connection_nominates_are_not_passed_on() -> None:
    head = read("GET / HTTP/1.1", "X-A: 1", "X-B: 2", "X-C: 3", "Connection: x-a, , X-B", "connection:\tkeep-alive")
    assert passed_on(head) == [b"X-C: 3\r\n"]
    assert not head.close


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [
        ("1.1", "close", True),
        ("1.1", "Keep-Alive, CLOSE", True),
        ("1.1", "keep-alive", False),
        ("1.1", "closed", False),
        ("1.0", "x", True),
        ("1.0", "keep-alive", False),
        ("1.0", "keep-alive, close", True),
    ],
)
def test_who_wants_the_connection_closed(version: str, connection: str, close: bool) -> None:
    assert read(f"GET / HTTP/{version}", f"Connection: {connection}").close is close


def test_a_switch_of_protocols_is_asked_for_by_connection_and_upgrade_without_a_body() -> None:
    assert read("GET / HTTP/1.1", "Connection: x, Upgrade", "Upgrade: WebSocket").upgrade == b"websocket"
    assert read("GET / HTTP/1.1", "Upgrade: websocket").upgrade == b""
    assert read("GET / HTTP/1.0", "Connection: upgrade", "Upgrade: websocket").upgrade == b""
    assert read("POST / HTTP/1.1", "Connection: upgrade", "Upgrade: websocket").upgrade == b""
    with_body = read("POST / HTTP/1.1", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 1")
    assert with_body.upgrade == b""
    for head in (with_body, read("GET / HTTP/1.1", "Connection: upgrade, http2-settings", "Upgrade: h2c")):
        assert passed_on(head) == []


def test_of_the_expectations_only_100_continue_is_known() -> None:
    assert read("POST / HTTP/1.1", "Expect: 100-Continue", "Content-Length: 1").expect
    assert not read("GET / HTTP/1.1", "Expect: 100-continue").expect
    assert not read("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1").expect
    assert refusal("POST / HTTP/1.1", "Expect: 200-ok", "Content-Length: 1") == 417
    assert refusal("POST / HTTP/1.1", "Expect: 100-continue, x", "Content-Length: 1") == 417


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"GET", b"/", b"HTTP/1.1", b"Host: t",
                                 b"Content-Length: 1", b"Transfer-Encoding: chunked", b"\x00", b"\xff", b"a"]),
                max_size=30))  # fmt: skip
def test_any_bytes_are_refused_or_understood_without_line_ends_in_what_is_passed_on(pieces: list[bytes]) -> None:
    data = b"".join(pieces) + b"\r\n\r\n"
    try:
        head = read_request(data[: data.find(b"\r\n\r\n") + 4], 100, 8192)
    except BadMessage as error:
        assert error.status in (400, 501, 505)
        return
    for part in passed_on(head):
        assert part.endswith(b"\r\n")
        assert not set(part[:-2]) & set(b"\r\n\x00")


@pytest.mark.parametrize(
    "line",
    [
        "X:" + " " * 60_000 + "\x01",
        "X: a" + " " * 60_000 + "\x01",
        "X: " + "a " * 30_000 + "\x01",
        "X: " + "\t " * 30_000 + "a\x01",
        "X" * 60_000,
        "Connection: " + "," * 60_000,
        "Connection: " + "a," * 30_000,
        "Transfer-Encoding: " + "," * 60_000,
        "Host: " + "a." * 30_000,
        "Upgrade: " + "a," * 30_000,
    ],
    ids=lambda line: str(line[:14]) + "…",
)
def test_no_field_line_takes_long_to_read(line: str) -> None:
    started = time.process_time()
    try:
        read("GET / HTTP/1.1", line, host=None if line.startswith("Host") else "test")
    except BadMessage as error:
        assert error.status == 400
    assert time.process_time() - started < 0.1


def test_what_is_remembered_of_strangers_is_bounded_in_bytes() -> None:
    for number in range(200):
        for lines in ([f"Connection: {number}" + ",a" * 500], [f"X-{number}: " + "a" * 5000]):
            read("GET / HTTP/1.1", *lines)
        read(f"GET /{number}%20{'a' * 5000} HTTP/1.1")
        refusal("GET / HTTP/1.1", host=f"a{number}" + "b" * 5000)
    for memory in (targets._paths, targets._hosts, fields._connections, requests._fields._lines):  # pyright: ignore[reportPrivateUsage] # (their size is what this is about)
        assert sum(map(len, memory)) < 1_000_000
        assert max(map(len, memory), default=0) <= 512

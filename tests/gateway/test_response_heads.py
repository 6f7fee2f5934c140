"""Reading an upstream's response head: held to the same rules as requests, and framed without doubt."""

import time

import pytest
from toska_gateway.worker.http1 import CHUNKED, BadMessage, ResponseHead, read_response


def read(*lines: str, to: str = "GET") -> ResponseHead:
    """Read a head given by its lines, as the answer to a request of method `to`."""
    return read_response("\r\n".join([*lines, "", ""]).encode("latin-1"), bodiless=to == "HEAD")


def test_a_plain_head_is_understood() -> None:
    head = read("HTTP/1.1 200 OK", "Content-Type:  text/plain ", "Content-Length: 5", "Set-Cookie: a", "set-cookie: b")
    assert (head.status, head.body_length, head.close) == (200, 5, False)
    assert head.parts == [
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Type: text/plain\r\n",
        b"Set-Cookie: a\r\n",
        b"set-cookie: b\r\n",
    ]


@pytest.mark.parametrize(
    ("line", "passed_on"),
    [
        ("HTTP/1.1 200", b"HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200 ", b"HTTP/1.1 200 \r\n"),
        ("HTTP/1.0 404 Not Found", b"HTTP/1.1 404 Not Found\r\n"),
        ("HTTP/1.1 999 caf\xe9 !", b"HTTP/1.1 999 caf\xe9 !\r\n"),
    ],
)
def test_status_lines_are_passed_on_in_our_version(line: str, passed_on: bytes) -> None:
    assert read(line).parts[0] == passed_on


@pytest.mark.parametrize(
    "line",
    [
        "",
        "HTTP/1.1",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1  200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/2 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 200 O\x00K",
        "HTTP/1.1 200 O\nK",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1\t200\tOK",
    ],
)
def test_a_malformed_status_line_is_the_upstreams_fault(line: str) -> None:
    with pytest.raises(BadMessage) as refused:
        read(line)
    assert (refused.value.status, refused.value.code) == (502, "bad-upstream-response")


@pytest.mark.parametrize(
    "fields",
    [
        ["X-A : 1"],
        [" folded"],
        ["X-A: 1\r\n folded"],
        ["X-A: 1\nX-B: 2"],
        ["X-A: 1\rX-B: 2"],
        ["X-A: 1\x00"],
        ["X A: 1"],
        ["X-A"],
        [": 1"],
        ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1, 1"],
        ["Content-Length: +1"],
        ["Content-Length: -1"],
        ["Content-Length: 0x1"],
        ["Content-Length:"],
        ["Content-Length: 9999999999999999999"],
        ["Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding:"],
        ["Transfer-Encoding: chunked\x0b"],
    ],
)
def test_a_response_that_is_not_beyond_doubt_is_the_upstreams_fault(fields: list[str]) -> None:
    with pytest.raises(BadMessage) as refused:
        read("HTTP/1.1 200 OK", *fields)
    assert refused.value.status == 502
    with pytest.raises(BadMessage):
        read("HTTP/1.1 204 No Content", *fields)
    with pytest.raises(BadMessage):
        read("HTTP/1.1 200 OK", *fields, to="HEAD")


@pytest.mark.parametrize(
    ("status", "fields", "to", "length"),
    [
        (200, ["Content-Length: 5"], "GET", 5),
        (200, ["Content-Length: 0"], "GET", 0),
        (200, ["Transfer-Encoding: Chunked"], "GET", CHUNKED),
        (200, [], "GET", None),
        (404, ["Content-Length: 5"], "GET", 5),
        (200, ["Content-Length: 5"], "HEAD", 0),
        (200, ["Transfer-Encoding: chunked"], "HEAD", 0),
        (200, [], "HEAD", 0),
        (204, [], "GET", 0),
        (204, ["Content-Length: 5"], "GET", 0),
        (304, ["Content-Length: 5"], "GET", 0),
        (304, ["Transfer-Encoding: chunked"], "GET", 0),
        (103, [], "GET", 0),
    ],
)
def test_the_length_of_a_body_follows_from_status_method_and_fields(
    status: int, fields: list[str], to: str, length: int | None
) -> None:
    assert read(f"HTTP/1.1 {status} Reason", *fields, to=to).body_length == length


@pytest.mark.parametrize(
    ("version", "fields", "close"),
    [
        ("1.1", [], False),
        ("1.1", ["Connection: close"], True),
        ("1.1", ["Connection: x", "Connection: Close"], True),
        ("1.0", [], True),
        ("1.0", ["Connection: keep-alive"], False),
        ("1.0", ["Connection: keep-alive, close"], True),
    ],
)
def test_whether_the_upstream_keeps_its_connection(version: str, fields: list[str], close: bool) -> None:
    assert read(f"HTTP/{version} 200 OK", *fields).close is close


def test_a_transfer_coding_in_http_1_0_is_the_upstreams_fault() -> None:
    for fields in ([], ["Connection: keep-alive"]):
        with pytest.raises(BadMessage) as refused:
            read("HTTP/1.0 200 OK", "Transfer-Encoding: chunked", *fields)
        assert refused.value.status == 502


def test_fields_for_this_hop_are_not_passed_on() -> None:
    names = ["Keep-Alive", "Proxy-Connection", "Trailer", "Upgrade", "Proxy-Authenticate", "X-Toska-Error", "X-Mine"]
    head = read("HTTP/1.1 200 OK", *[f"{name}: 1" for name in names], "X-Kept: 1", "Connection: X-MINE")
    assert head.parts[1:] == [b"X-Kept: 1\r\n"]


@pytest.mark.parametrize(
    "line",
    ["X:" + " " * 200_000 + "\x01", "Connection: " + "a," * 100_000, "X" * 200_000],
    ids=["space", "list", "name"],
)
def test_no_field_line_takes_long_to_read(line: str) -> None:
    started = time.process_time()
    try:
        read("HTTP/1.1 200 OK", line)
    except BadMessage as error:
        assert error.status == 502
    assert time.process_time() - started < 0.2


def test_many_lines_of_one_field_are_refused_in_no_time() -> None:
    started = time.process_time()
    with pytest.raises(BadMessage):
        read("HTTP/1.1 200 OK", *["Trailer: a"] * 20_000)
    assert time.process_time() - started < 0.1

"""What filters are given to work with, without a gateway: headers, messages, and what may not be said."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.filters import Answer, Filter, HeaderRefused, Headers, Misuse, Reject, Request, Response
from toska_common.filters.headers import GUARDED

LINES = [b"", b"Accept: a\r\n", b"accept: b\r\n", b"X-One:  1 \r\n"]


def test_names_are_the_same_in_any_case_and_lines_are_joined() -> None:
    headers = Headers.over(list(LINES), {b"host": (b"shop",)})
    assert headers["ACCEPT"] == "a, b"
    assert headers.get_all("accept") == ["a", "b"]
    assert headers["x-one"] == "1"
    assert "X-ONE" in headers
    assert "x-on" not in headers
    assert "x" not in headers
    assert headers.get("x-none") is None
    assert sorted(headers) == ["accept", "host", "x-one"]
    assert len(headers) == 3
    assert headers["host"] == "shop"


def test_setting_replaces_every_line_and_adding_does_not() -> None:
    lines = list(LINES)
    headers = Headers.over(lines)
    headers["Accept"] = "c"
    assert lines == [b"", b"X-One:  1 \r\n", b"Accept: c\r\n"]
    headers.add("accept", "d")
    assert headers["accept"] == "c, d"
    del headers["ACCEPT"]
    assert lines == [b"", b"X-One:  1 \r\n"]
    with pytest.raises(KeyError):
        del headers["accept"]
    assert headers.pop("accept", None) is None


def test_the_first_line_is_left_alone() -> None:
    lines = [b"HTTP/1.1 200 a: b\r\n"]
    headers = Headers.over(lines)
    assert list(headers) == []
    headers["http/1.1"[:4]] = "x"
    assert lines[0] == b"HTTP/1.1 200 a: b\r\n"


@pytest.mark.parametrize("name", sorted(GUARDED))
def test_what_is_the_gateways_own_can_be_read_and_not_changed(name: str) -> None:
    headers = Headers.over([b""], {name.encode(): (b"1",)})
    assert headers[name.upper()] == "1"
    for twin in (name, name.title(), name.replace("-", "_")):
        with pytest.raises(HeaderRefused):
            headers[twin] = "x"
        with pytest.raises(HeaderRefused):
            headers.add(twin, "x")
    with pytest.raises(HeaderRefused):
        del headers[name]


@given(st.text(max_size=20), st.text(max_size=50))
def test_nothing_that_is_written_makes_more_than_one_line(name: str, value: str) -> None:
    lines = [b""]
    try:
        Headers.over(lines)[name] = value
    except HeaderRefused as error:
        assert len(value) < 3 or value not in str(error) or value in name
        return
    assert len(lines) == 2
    assert lines[1].count(b"\r") == lines[1].count(b"\n") == 1
    assert lines[1].endswith(b"\r\n")
    assert b"\0" not in lines[1]
    assert Headers.over(lines)[name] == value.strip(" \t")


def test_a_value_is_latin_1_and_bounded() -> None:
    headers = Headers({"x-a": "é"})
    assert headers.wire() == b"x-a: \xe9\r\n"
    for value in ("€", "x" * 32769, "é" * 32769):
        with pytest.raises(HeaderRefused):
            headers["x-a"] = value


def test_values_do_not_show_in_a_representation() -> None:
    assert "hush" not in repr(Headers({"authorization": "hush"}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reject(200, "fine"),
        lambda: Reject(600, "more than fine"),
        lambda: Answer(status=199),
        lambda: Answer("body", status=204),
        lambda: Answer(headers={"content-type": "a/b"}),
        lambda: Answer(content_type="a/b\r\nx: y"),
        lambda: Response(206).filter_body(None),  # type: ignore[arg-type]  # it is refused before
    ],
)
def test_what_cannot_be_served_is_refused_where_it_is_written(make: "type[object]") -> None:
    with pytest.raises(Misuse):
        make()


def test_state_is_shared_between_a_request_and_its_response() -> None:
    request = Request(headers={"x-a": "1"})
    request.state["tenant"] = "acme"
    assert Response(request=request).state == {"tenant": "acme"}
    assert Request().state == {}


def test_a_filter_that_does_nothing_is_one() -> None:
    nothing = Filter()
    assert nothing.on_request(Request()) is None
    assert nothing.on_response(Response()) is None


def test_filters_import_nothing_heavy() -> None:
    heavy = "{'pydantic', 'fastapi', 'asyncio', 'httpx', 'structlog', 'anyio', 'aiohttp'}"
    code = f"import sys, toska_common.filters; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

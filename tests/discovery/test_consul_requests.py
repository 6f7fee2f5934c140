"""How requests of Consul's API are read: Go's durations, query strings, bounds."""

import anyio
import pytest
from starlette.types import Message
from toska_discovery.consul import request
from toska_discovery.consul.durations import parse_duration
from toska_discovery.consul.request import CallerGone, ConsulRequest, Refusal, parse_query


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15.0), ("1h2m3.5s", 3723.5), ("250ms", 0.25), (".5s", 0.5), ("1.s", 1.0), ("10us", 1e-5),
        ("10µs", 1e-5), ("7ns", 7e-9), ("-5s", -5.0), ("+5s", 5.0), ("0", 0.0), ("-0", 0.0), ("1m1m", 120.0),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'time: invalid duration ""'),
        ("zz", 'time: invalid duration "zz"'),
        ("10", 'time: missing unit in duration "10"'),
        ("10 s", 'time: invalid duration "10 s"'),
        ("5d", 'time: invalid duration "5d"'),
        ("--5s", 'time: invalid duration "--5s"'),
        ("s", 'time: invalid duration "s"'),
        ("999999999h", 'time: invalid duration "999999999h"'),
    ],
)
def test_what_is_no_duration_is_told_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text)


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", 300),
        ("wait=", 300),
        ("wait=0s", 300),
        ("wait=-1s", 300),
        ("wait=10s", 10),
        ("wait=10m", 600),
        ("wait=1h", 600),
    ],
)
def test_a_wait_is_five_minutes_unless_asked_otherwise_and_ten_at_most(query: str, seconds: float) -> None:
    assert parse_query(query.encode()).wait_s == seconds


def test_a_query_string_keeps_repeated_and_empty_values() -> None:
    query = parse_query(b"passing&tag=a&tag=b%20c&dc=&index=7")
    assert query.all("tag") == ("a", "b c")
    assert (query.has("passing"), query.flag("passing"), query.first("dc"), query.has("near")) == (
        True,
        True,
        "",
        False,
    )
    assert query.index == 7


@pytest.mark.parametrize("index", ["-1", "abc", "1.5", "9" * 30, str(2**64), "٣"])
def test_an_index_is_an_unsigned_64_bit_number(index: str) -> None:
    with pytest.raises(Refusal, match="Invalid index"):
        _ = parse_query(f"index={index}".encode()).index


def reading(*messages: Message) -> ConsulRequest:
    waiting = [*messages]

    async def receive() -> Message:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    return ConsulRequest("PUT", "", parse_query(b""), {}, receive)


def chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_put_together_from_its_chunks() -> None:
    body = await reading(chunk(b"a", more=True), chunk(b"", more=True), chunk(b"b", more=False)).body()
    assert body == b"ab"


async def test_a_body_without_a_length_is_bounded_as_well() -> None:
    half = b"x" * (request.BODY_MAX_BYTES // 2 + 1)
    with pytest.raises(Refusal, match="too large") as refusal:
        await reading(chunk(half, more=True), chunk(half, more=True)).body()
    assert refusal.value.status == 413


async def test_a_body_that_breaks_off_is_nobodys_request() -> None:
    with pytest.raises(CallerGone):
        await reading(chunk(b"a", more=True), {"type": "http.disconnect"}).body()


async def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_TIMEOUT_S", 0.05)
    with pytest.raises(Refusal, match="in time") as refusal:
        await reading(chunk(b"a", more=True)).body()
    assert refusal.value.status == 408

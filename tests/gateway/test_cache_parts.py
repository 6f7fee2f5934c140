"""Conditional requests, ranges and HEAD, out of what is stored."""

import pytest
from toska_tests.cached import FRESH, PLAIN, by_method, cached, reply
from toska_tests.gateways import Gateway
from toska_tests.raw_http import Message, answering, ask, connected, get, request, upstream

pytestmark = pytest.mark.usefixtures("nothing_stored")


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ('If-None-Match: "v1"', 304),
        ('If-None-Match: W/"v1"', 304),
        ('If-None-Match: "v0", "v1"', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "v0"', 200),
        ("If-None-Match: v1", 200),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
    ],
)
async def test_a_client_that_has_it_is_told_so_from_the_store(gateway: Gateway, field: str, status: int) -> None:
    fields = (FRESH, 'etag: "v1"', "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", "content-type: text/plain")
    async with upstream(reply(*fields)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        async with connected(gateway.address) as client:
            answer = await client.ask(get("/", field))
            assert answer.status == status
            assert (answer.value("content-type") is None) is (status == 304)
            assert answer.value("etag") == b'"v1"'
            assert (await client.ask(PLAIN)).body == b"hello"
    assert len(app.requests) == 1


@pytest.mark.parametrize(
    ("fields", "status", "body", "range_"),
    [
        (["Range: bytes=1-3"], 206, b"ell", b"bytes 1-3/5"),
        (["Range: bytes=3-"], 206, b"lo", b"bytes 3-4/5"),
        (["Range: bytes=-2"], 206, b"lo", b"bytes 3-4/5"),
        (["Range: bytes=-9"], 206, b"hello", b"bytes 0-4/5"),
        (["Range: bytes=0-99"], 206, b"hello", b"bytes 0-4/5"),
        (["Range: BYTES=0-0"], 206, b"h", b"bytes 0-0/5"),
        (["Range: bytes=5-"], 416, b"", b"bytes */5"),
        (["Range: bytes=-0"], 416, b"", b"bytes */5"),
        (["Range: bytes=3-1"], 200, b"hello", None),
        (["Range: bytes=0-1,3-4"], 200, b"hello", None),
        (["Range: lines=0-1"], 200, b"hello", None),
        (["Range: bytes=x"], 200, b"hello", None),
        (["Range: bytes=0-1", 'If-Range: "v1"'], 206, b"he", b"bytes 0-1/5"),
        (["Range: bytes=0-1", 'If-Range: W/"v1"'], 200, b"hello", None),
        (["Range: bytes=0-1", 'If-Range: "v0"'], 200, b"hello", None),
        (["Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"], 206, b"he", b"bytes 0-1/5"),
        (["Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:49:38 GMT"], 200, b"hello", None),
        (["Range: bytes=0-1", 'If-None-Match: "v1"'], 304, b"", None),
    ],
)
async def test_a_range_is_cut_out_of_what_is_stored(
    gateway: Gateway, fields: list[str], status: int, body: bytes, range_: bytes | None
) -> None:
    modified = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"
    async with upstream(reply(FRESH, 'etag: "v1"', modified)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        answer = await ask(gateway.address, get("/", *fields))
    assert (answer.status, answer.body, answer.value("content-range")) == (status, body, range_)
    assert len(app.requests) == 1


async def test_a_part_from_upstream_is_not_kept(gateway: Gateway) -> None:
    part = reply(FRESH, "content-range: bytes 0-1/5", body=b"he", status="206 Partial Content")
    async with upstream(answering(part, reply(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", "Range: bytes=0-1"))).body == b"he"
            assert (await client.ask(PLAIN)).body == b"hello"


async def test_a_head_is_answered_from_a_stored_get_and_stores_nothing_itself(gateway: Gateway) -> None:
    def say(message: Message) -> bytes:
        return reply(FRESH, body=b"" if message.method == "HEAD" else b"hello", length=5)

    async with upstream(by_method(say)) as app:
        await gateway.serve(cached(app.port))
        first = await ask(gateway.address, request("HEAD"), to="HEAD")
        assert first.value("cache-status") == b"toska; fwd=uri-miss; fwd-status=200"
        await ask(gateway.address, PLAIN)
        second = await ask(gateway.address, request("HEAD"), to="HEAD")
        assert (second.value("content-length"), second.body) == (b"5", b"")
        assert (second.value("cache-status") or b"").startswith(b"toska; hit")
    assert [message.method for message in app.requests] == ["HEAD", "GET"]

"""The cache over real connections: what clients and upstreams see of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.ports import free_port
from toska_tests.raw_http import (
    OK,
    Conversation,
    CutOff,
    Message,
    Script,
    Upstream,
    answering,
    ask,
    connected,
    get,
    request,
    upstream,
)
from toska_tests.waiting import wait_until

PLAIN = get()


@pytest.fixture(autouse=True)
async def nothing_stored(gateway: Gateway) -> None:
    """What one test has stored outlives its routes, and is no other test's."""
    await gateway.supervisor.purge({})


def response(*fields: str, body: bytes = b"hello", status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = "".join(f"{field}\r\n" for field in (*fields, f"content-length: {size}"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def by_method(answer: Callable[[Message], bytes]) -> Script:
    """A script that answers each request by what it says."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.send(answer(await conversation.request()))

    return script


def cached(port: int, policies: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return single(port, policies={"cache": settings, **(policies or {})})


async def outcomes(gateway: Gateway) -> dict[str, float]:
    found = await gateway.metrics()
    prefix = 'toska_gateway_cache_requests_total{route="all",outcome="'
    return {series[len(prefix) : -2]: value for series, value in found.items() if series.startswith(prefix)}


FRESH = "cache-control: max-age=60"
STALE = ("cache-control: max-age=60", "age: 70", 'etag: "v1"')
"""As another cache would pass on what it has had for a while."""


# -- what is seen of it


async def test_a_hit_says_its_age_and_that_it_is_one(gateway: Gateway) -> None:
    async with upstream(response(FRESH, "age: 7", "x-a: 1", 'etag: "v1"')) as app:
        await gateway.serve(cached(app.port))
        miss, hit = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert miss.value("cache-status") == b"toska; fwd=uri-miss; fwd-status=200; stored"
    assert miss.value("age") == b"7"
    assert (hit.status, hit.body) == (200, b"hello")
    assert hit.value("cache-status") == b"toska; hit; ttl=52" or hit.value("cache-status") == b"toska; hit; ttl=53"
    assert hit.value("age") in (b"7", b"8")
    assert hit.value("x-a") == b"1"
    assert hit.value("date") is not None
    assert hit.value("content-length") == b"5"
    assert hit.value("via") == miss.value("via")
    assert len(app.requests) == 1


async def test_caches_behind_us_keep_their_word_in_cache_status(gateway: Gateway) -> None:
    async with upstream(response(FRESH, "cache-status: origin; hit")) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        hit = await ask(gateway.address, PLAIN)
    assert hit.values("cache-status")[0] == b"origin; hit"
    assert hit.values("cache-status")[1].startswith(b"toska; hit")


async def test_why_something_is_not_stored_is_said(gateway: Gateway) -> None:
    async with upstream(response("cache-control: private")) as app:
        await gateway.serve(cached(app.port))
        answer = await ask(gateway.address, PLAIN)
    assert answer.value("cache-status") == b"toska; fwd=uri-miss; detail=private; fwd-status=200"


async def test_hits_pass_header_rules_and_keep_their_connection(gateway: Gateway) -> None:
    async with upstream(response(FRESH, "server: x")) as app:
        rules = {"headers": {"response": {"set": {"x-rule": "1"}, "remove": ["server"]}}}
        await gateway.serve(cached(app.port, rules))
        async with connected(gateway.address) as client:
            answers = [await client.ask(PLAIN) for _ in range(3)]
            assert [answer.value("x-rule") for answer in answers] == [b"1"] * 3
            assert [answer.value("server") for answer in answers] == [None] * 3
            last = await client.ask(get("/", "Connection: close"))
            assert last.value("connection") == b"close"
            assert await client.is_closed()
    assert len(app.requests) == 1


async def test_pipelined_hits_are_answered_in_order(gateway: Gateway) -> None:
    async with upstream(by_method(lambda message: response(FRESH, body=message.target.encode()))) as app:
        await gateway.serve(cached(app.port))
        for target in ("/a", "/b"):
            await ask(gateway.address, get(target))
        async with connected(gateway.address) as client:
            await client.send(get("/a") + get("/b") + get("/c") + get("/a"))
            assert [(await client.response()).body for _ in range(4)] == [b"/a", b"/b", b"/c", b"/a"]


async def test_an_http_1_0_client_is_served_from_the_store(gateway: Gateway) -> None:
    async with upstream(response(FRESH)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        hit = await ask(gateway.address, get("/", version="HTTP/1.0"))
        assert (hit.body, hit.value("connection")) == (b"hello", b"close")
    assert len(app.requests) == 1


async def test_what_comes_in_chunks_is_kept_and_has_a_length(gateway: Gateway) -> None:
    head = f"HTTP/1.1 200 OK\r\n{FRESH}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    async with upstream(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") as app:
        await gateway.serve(cached(app.port))
        assert (await ask(gateway.address, PLAIN)).body == b"abcde"
        hit = await ask(gateway.address, PLAIN)
    assert (hit.body, hit.value("content-length")) == (b"abcde", b"5")


async def test_outcomes_are_counted_by_route(gateway: Gateway) -> None:
    before = await outcomes(gateway)
    async with upstream(response(FRESH)) as app:
        await gateway.serve(cached(app.port))
        for message in (PLAIN, PLAIN, PLAIN, get("/", "Cache-Control: no-store")):
            await ask(gateway.address, message)
    after = await outcomes(gateway)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: count for name, count in grown.items() if count} == {"miss": 1, "hit": 2, "bypass": 1}
    assert await gateway.metric("cache_entries") == 1
    assert await gateway.metric("cache_bytes") > 1000
    assert await gateway.metric("requests_total", route="all", status="200") >= 4


# -- conditional requests and ranges


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
    async with upstream(response(*fields)) as app:
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
    async with upstream(response(FRESH, 'etag: "v1"', modified)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        answer = await ask(gateway.address, get("/", *fields))
    assert (answer.status, answer.body, answer.value("content-range")) == (status, body, range_)
    assert len(app.requests) == 1


async def test_a_part_from_upstream_is_not_kept(gateway: Gateway) -> None:
    part = response(FRESH, "content-range: bytes 0-1/5", body=b"he", status="206 Partial Content")
    async with upstream(answering(part, response(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert (await client.ask(get("/", "Range: bytes=0-1"))).body == b"he"
            assert (await client.ask(PLAIN)).body == b"hello"


async def test_a_head_is_answered_from_a_stored_get_and_stores_nothing_itself(gateway: Gateway) -> None:
    def answer(message: Message) -> bytes:
        return response(FRESH, body=b"" if message.method == "HEAD" else b"hello", length=5)

    async with upstream(by_method(answer)) as app:
        await gateway.serve(cached(app.port))
        first = await ask(gateway.address, request("HEAD"), to="HEAD")
        assert first.value("cache-status") == b"toska; fwd=uri-miss; fwd-status=200"
        await ask(gateway.address, PLAIN)
        second = await ask(gateway.address, request("HEAD"), to="HEAD")
        assert (second.value("content-length"), second.body) == (b"5", b"")
        assert (second.value("cache-status") or b"").startswith(b"toska; hit")
    assert [message.method for message in app.requests] == ["HEAD", "GET"]


# -- what requests ask for


async def test_a_client_that_wants_no_stored_response_gets_none(gateway: Gateway) -> None:
    async with upstream(response(FRESH)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        for field in (
            "Cache-Control: no-cache",
            "Cache-Control: no-store",
            "Pragma: no-cache",
            "Cache-Control: max-age=0",
        ):
            asked = len(app.requests)
            await ask(gateway.address, get("/", field))
            if field != "Cache-Control: max-age=0":  # (an age below a second is 0)
                assert len(app.requests) == asked + 1, field


async def test_an_operator_can_ignore_what_requests_ask_of_caches(gateway: Gateway) -> None:
    async with upstream(response(FRESH)) as app:
        await gateway.serve(cached(app.port, request_directives="ignore"))
        for field in ("x-a: 1", "Cache-Control: no-cache", "Cache-Control: no-store", "Pragma: no-cache"):
            await ask(gateway.address, get("/", field))
    assert len(app.requests) == 1


async def test_only_what_is_cached_means_that(gateway: Gateway) -> None:
    async with upstream(response(FRESH)) as app:
        await gateway.serve(cached(app.port))
        refused = await ask(gateway.address, get("/", "Cache-Control: only-if-cached"))
        assert (refused.status, refused.error) == (504, "not-cached")
        await ask(gateway.address, PLAIN)
        assert (await ask(gateway.address, get("/", "Cache-Control: only-if-cached"))).body == b"hello"
    assert len(app.requests) == 1


async def test_if_match_is_for_the_origin_to_judge(gateway: Gateway) -> None:
    async with upstream(response(FRESH, 'etag: "v1"')) as app:
        await gateway.serve(cached(app.port))
        for field in ("x-a: 1", 'If-Match: "v0"', "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"):
            await ask(gateway.address, get("/", field))
    assert len(app.requests) == 3


# -- validation


def validating(etag: str = '"v1"', control: str = "max-age=60") -> Script:
    """First stale; then 304 to whoever shows the etag."""

    def answer(message: Message) -> bytes:
        if message.value("if-none-match") == etag.encode():
            return f"HTTP/1.1 304 Not Modified\r\netag: {etag}\r\ncache-control: {control}\r\nx-a: new\r\n\r\n".encode()
        return response("cache-control: max-age=60", "age: 70", f"etag: {etag}", "x-a: old")

    return by_method(answer)


async def test_what_is_stale_is_validated_and_fresh_again(gateway: Gateway) -> None:
    async with upstream(validating()) as app:
        await gateway.serve(cached(app.port))
        first, second, third = [await ask(gateway.address, PLAIN) for _ in range(3)]
    assert first.value("x-a") == b"old"
    assert (second.status, second.body, second.value("x-a")) == (200, b"hello", b"new")
    assert (second.value("cache-status") or b"").startswith(b"toska; fwd=stale; fwd-status=304; ttl=")
    assert (third.body, third.value("x-a")) == (b"hello", b"new")
    assert (third.value("cache-status") or b"").startswith(b"toska; hit")
    assert len(app.requests) == 2


async def test_a_clients_own_validators_are_held_against_what_was_validated(gateway: Gateway) -> None:
    async with upstream(validating()) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        other = await ask(gateway.address, get("/", 'If-None-Match: "v0"', "Range: bytes=0-1", 'If-Range: "v1"'))
        assert app.requests[1].value("if-none-match") == b'"v1"'
        assert app.requests[1].value("range") is None
        assert (other.status, other.body) == (206, b"he")
        same = await ask(gateway.address, get("/", 'If-None-Match: "v1"', "Cache-Control: no-cache"))
        assert same.status == 304


async def test_what_has_changed_takes_the_place_of_what_was_stored(gateway: Gateway) -> None:
    async with upstream(answering(response(*STALE), response(FRESH, body=b"news"))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert [(await client.ask(PLAIN)).body for _ in range(3)] == [b"hello", b"news", b"news"]
    assert app.requests[1].value("if-none-match") == b'"v1"'


async def test_no_cache_is_validated_each_time(gateway: Gateway) -> None:
    async with upstream(validating(control="no-cache, max-age=60")) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
    assert [message.value("if-none-match") for message in app.requests] == [None, b'"v1"', b'"v1"']


async def test_a_validation_that_forbids_keeping_ends_it(gateway: Gateway) -> None:
    async with upstream(validating(control="no-store")) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
    assert [message.value("if-none-match") for message in app.requests] == [None, b'"v1"', None]


# -- invalidation


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("status", "gone"), [("200 OK", True), ("303 See Other", True), ("400 Bad", False), ("500 No", False)]
)
async def test_an_unsafe_request_that_succeeds_ends_what_is_stored(
    gateway: Gateway, method: str, status: str, gone: bool
) -> None:
    def answer(message: Message) -> bytes:
        return response(FRESH) if message.method == "GET" else response(status=status)

    async with upstream(by_method(answer)) as app:
        await gateway.serve(cached(app.port))
        for message in (PLAIN, request(method), PLAIN):
            await ask(gateway.address, message)
    assert len(app.requests) == (3 if gone else 2)


async def test_an_unsafe_request_ends_also_what_its_answer_points_to_if_it_is_of_the_same_origin(
    gateway: Gateway,
) -> None:
    def answer(message: Message) -> bytes:
        if message.method == "GET":
            return response(FRESH)
        return response("location: /new?a=1", "content-location: http://other/kept", status="201 Created")

    async with upstream(by_method(answer)) as app:
        await gateway.serve(cached(app.port))
        stored = [get("/new?a=1"), get("/kept", host="other"), get("/also")]
        for message in (*stored, request("POST", "/here"), *stored):
            await ask(gateway.address, message)
    assert [message.target for message in app.requests[4:]] == ["/new?a=1"]


async def test_every_variant_is_ended_and_in_every_worker() -> None:
    def answer(message: Message) -> bytes:
        return response(FRESH, "vary: x-a") if message.method == "GET" else OK

    async with upstream(by_method(answer)) as app, running_gateway(workers=2) as gateway:
        await gateway.serve(cached(app.port))
        connections = [await ask_until_both(gateway, value) for value in ("1", "2")]
        assert sum(connections) >= 4
        assert await gateway.metric("cache_entries") == 4
        await ask(gateway.address, request("POST"))

        async def gone() -> bool:
            return await gateway.metric("cache_entries") == 0

        await wait_until(gone, what="both workers have forgotten")


async def ask_until_both(gateway: Gateway, value: str) -> int:
    """Ask until both workers have stored their response."""
    before, asked = await gateway.metric("cache_entries"), 0
    while await gateway.metric("cache_entries") < before + 2:
        assert (await ask(gateway.address, get("/", f"X-A: {value}"))).status == 200
        asked += 1
        assert asked < 500
    return asked


# -- bodies that do not come to their end


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("framing", ["content-length: 10", "transfer-encoding: chunked"])
async def test_a_body_that_was_cut_off_is_not_kept(gateway: Gateway, framing: str, end: str) -> None:
    cut = True

    async def script(conversation: Conversation) -> None:
        nonlocal cut
        await conversation.request()
        if cut:
            cut = False
            piece = b"hello" if "length" in framing else b"5\r\nhello\r\n"
            await conversation.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\n{framing}\r\n\r\n".encode() + piece)
            if end == "reset":
                conversation.reset()
            return
        await conversation.send(response(FRESH, body=b"whole"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        with pytest.raises((CutOff, ConnectionError)):
            await ask(gateway.address, PLAIN)
        assert (await ask(gateway.address, PLAIN)).body == b"whole"
        assert (await ask(gateway.address, PLAIN)).body == b"whole"
    assert len(app.requests) == 2


async def test_a_body_that_ends_with_its_connection_is_not_kept(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\n\r\nhello".encode())

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        answers = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"hello"] * 2
    assert answers[0].value("cache-status") == b"toska; fwd=uri-miss; detail=unframed; fwd-status=200"
    assert len(app.requests) == 2


async def test_what_a_client_did_not_wait_for_is_not_kept(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\ncontent-length: 10\r\n\r\nhello".encode())
        await go_on.wait()
        await conversation.send(b"world")
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await client.until(b"hello")
            client.reset()
        await gateway.until_quiet()
        go_on.set()
        assert (await ask(gateway.address, PLAIN)).body == b"helloworld"
    assert len(app.requests) == 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_too_long_is_passed_on_and_not_kept(gateway: Gateway, chunked: bool) -> None:
    body = b"x" * 3000
    answer = response(FRESH, body=body)
    if chunked:
        head = f"HTTP/1.1 200 OK\r\n{FRESH}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        answer = head + b"".join(b"3e8\r\n" + body[:1000] + b"\r\n" for _ in range(3)) + b"0\r\n\r\n"
    async with upstream(answer) as app:
        await gateway.serve(cached(app.port, max_entry_bytes=2000))
        for _ in range(2):
            assert (await ask(gateway.address, PLAIN)).body == body
    assert len(app.requests) == 2


async def test_a_body_reaches_the_client_while_it_is_being_stored(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\ncontent-length: 10\r\n\r\nhello".encode())
        await go_on.wait()
        await conversation.send(b"world")
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await client.until(b"hello")
            go_on.set()
            assert await client.exactly(5) == b"world"
        assert (await ask(gateway.address, PLAIN)).body == b"helloworld"
    assert len(app.requests) == 1


# -- stale responses


async def test_a_stale_response_is_served_while_it_is_asked_for_anew(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        fields = ("cache-control: max-age=60, stale-while-revalidate=60", "age: 70", 'etag: "v1"')
        await conversation.send(response(*fields))
        await conversation.request()
        await go_on.wait()
        await conversation.send(response(FRESH, body=b"news"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        for _ in range(5):  # one refresh, however many are served meanwhile
            stale = await ask(gateway.address, PLAIN)
            assert stale.body == b"hello"
            assert (stale.value("cache-status") or b"").startswith(b"toska; hit; ttl=-")
        await wait_until(lambda: len(app.requests) == 2, what="the refresh has been sent")
        assert app.requests[1].value("if-none-match") == b'"v1"'
        go_on.set()

        async def renewed() -> bool:
            return (await ask(gateway.address, PLAIN)).body == b"news"

        await wait_until(renewed, what="what came anew is served")
        assert len(app.requests) == 2


async def test_a_refresh_that_fails_leaves_the_stale_response_where_it_is(gateway: Gateway) -> None:
    async with upstream(
        answering(
            response("cache-control: max-age=60, stale-while-revalidate=60", "age: 70"),
            response(status="500 No", body=b"no"),
        )
    ) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
        await wait_until(lambda: len(app.requests) >= 2)
        assert (await ask(gateway.address, PLAIN)).body == b"hello"


async def test_a_dead_upstream_is_stood_in_for(gateway: Gateway) -> None:
    port = free_port()
    async with upstream(response("cache-control: max-age=60, stale-if-error=60", "age: 70"), port=port):
        await gateway.serve(cached(port))
        await ask(gateway.address, PLAIN)
    stale = await ask(gateway.address, PLAIN)
    assert (stale.status, stale.body, stale.error) == (200, b"hello", None)
    assert (stale.value("cache-status") or b"").startswith(b"toska; fwd=stale; ttl=-")
    head = await ask(gateway.address, request("HEAD"), to="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert (await ask(gateway.address, get("/other"))).status in (502, 503)
    assert (await ask(gateway.address, get("/", "Cache-Control: no-cache"))).status in (502, 503)


@pytest.mark.parametrize("status", ["500 No", "502 No", "503 No", "504 No"])
async def test_an_upstream_that_fails_is_stood_in_for(gateway: Gateway, status: str) -> None:
    stale = response("cache-control: max-age=60", "age: 70", 'etag: "v1"')
    async with upstream(answering(stale, response(status=status, body=b"no" * 50_000))) as app:
        await gateway.serve(cached(app.port, {"retry": {"attempts": 1}}, stale_if_error="60s"))
        async with connected(gateway.address) as client:
            for _ in range(3):
                assert (await client.ask(PLAIN)).body == b"hello"
            head = await client.ask(request("HEAD"), to="HEAD")
            assert head.status == 200
    assert 2 <= len(app.requests) <= 4  # those that it has failed once need not wait for it again


async def test_an_upstream_that_hangs_is_waited_for_once(gateway: Gateway) -> None:
    stale, hangs = response("cache-control: max-age=60, stale-if-error=60", "age: 70"), asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        if len(app.requests) == 1:
            await conversation.send(stale)
            await conversation.request()
        await hangs.wait()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port, {"response_timeout": "300ms", "retry": {"attempts": 1}}))
        await ask(gateway.address, PLAIN)
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert (await ask(gateway.address, PLAIN)).body == b"hello"
        first = loop.time() - started
        for _ in range(20):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
        others = loop.time() - started - first
        assert first >= 0.3
        assert others < first + 1
        assert len(app.requests) <= 6


async def test_without_leave_an_error_is_an_error(gateway: Gateway) -> None:
    async with upstream(answering(response(*STALE), response(status="503 No", body=b"no"))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert [(await client.ask(PLAIN)).status for _ in range(2)] == [200, 503]


# -- requests at the same time


def slowly(go_on: asyncio.Event, answer: Callable[[Message], bytes]) -> Script:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await go_on.wait()
            await conversation.send(answer(message))

    return script


async def at_once(gateway: Gateway, requests: list[bytes], meanwhile: Callable[[], Awaitable[None]]) -> list[Message]:
    tasks = [asyncio.ensure_future(ask(gateway.address, message)) for message in requests]
    await meanwhile()
    return list(await asyncio.gather(*tasks))


async def until_asked(app: Upstream, count: int, gateway: Gateway, clients: int) -> None:
    async def all_in() -> bool:
        return len(app.requests) >= count and await gateway.metric("connections") >= clients

    await wait_until(all_in, what=f"{count} requests upstream of {clients} clients")


async def test_many_requests_for_the_same_are_one_for_the_upstream(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: response(FRESH))) as app:
        await gateway.serve(cached(app.port))

        async def meanwhile() -> None:
            await until_asked(app, 1, gateway, 30)
            go_on.set()

        answers = await at_once(gateway, [PLAIN] * 30, meanwhile)
    assert {answer.body for answer in answers} == {b"hello"}
    assert len(app.requests) == 1
    collapsed = [answer for answer in answers if b"collapsed" in (answer.value("cache-status") or b"")]
    assert len(collapsed) == 29


async def test_requests_do_not_queue_for_what_cannot_be_shared(gateway: Gateway) -> None:
    """The first one finds out; then all go at once, and later ones do not wait at all."""
    go_on, in_flight, most = asyncio.Event(), 0, 0

    async def script(conversation: Conversation) -> None:
        nonlocal in_flight, most
        while True:
            await conversation.request()
            in_flight += 1
            most = max(most, in_flight)
            await go_on.wait()
            in_flight -= 1
            await conversation.send(response("cache-control: private"))

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))

        async def meanwhile() -> None:
            await until_asked(app, 1, gateway, 10)
            go_on.set()

        await at_once(gateway, [PLAIN] * 10, meanwhile)
        assert len(app.requests) == 10
        go_on.clear()

        async def all_at_once() -> None:
            await until_asked(app, 20, gateway, 10)
            go_on.set()

        await at_once(gateway, [PLAIN] * 10, all_at_once)
    assert most == 10


async def test_variants_are_asked_for_once_each(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    def answer(message: Message) -> bytes:
        return response(FRESH, "vary: x-a", body=message.value("x-a") or b"")

    async with upstream(slowly(go_on, answer)) as app:
        await gateway.serve(cached(app.port))

        async def meanwhile() -> None:
            await until_asked(app, 1, gateway, 20)
            go_on.set()

        answers = await at_once(gateway, [get("/", f"X-A: {at % 2}") for at in range(20)], meanwhile)
    assert [answer.body for answer in answers] == [b"0", b"1"] * 10
    assert len(app.requests) == 2


async def test_a_request_waits_only_so_long(gateway: Gateway) -> None:
    go_on, asked = asyncio.Event(), 0

    async def script(conversation: Conversation) -> None:
        nonlocal asked
        await conversation.request()
        asked += 1
        if asked == 1:
            await go_on.wait()
        await conversation.send(response("cache-control: private", body=b"own"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port, coalesce_timeout="50ms"))
        async with connected(gateway.address) as slow:
            await slow.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            assert (await ask(gateway.address, PLAIN)).body == b"own"
            go_on.set()
            assert (await slow.response()).body == b"own"


async def test_those_who_wait_do_not_suffer_from_one_who_goes_away(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: response(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as leaving:
            await leaving.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            waiting = [asyncio.ensure_future(ask(gateway.address, PLAIN)) for _ in range(5)]
            await until_asked(app, 1, gateway, 6)
            leaving.reset()
        await wait_until(lambda: len(app.requests) == 2, what="the next one asks")
        go_on.set()
        assert {answer.body for answer in await asyncio.gather(*waiting)} == {b"hello"}
    assert len(app.requests) == 2


async def test_who_waits_and_goes_away_leaves_nothing_behind(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: response(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as first:
            await first.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            async with connected(gateway.address) as second:
                await second.send(PLAIN)
                await until_asked(app, 1, gateway, 2)
                second.reset()
            go_on.set()
            assert (await first.response()).body == b"hello"
        await gateway.until_quiet()


async def test_credentials_do_not_wait_for_strangers(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(
        slowly(go_on, lambda message: response(FRESH, body=message.value("authorization") or b"-"))
    ) as app:
        await gateway.serve(cached(app.port))
        asked = [PLAIN, get("/", "Authorization: a"), get("/", "Cookie: a=1")]

        async def meanwhile() -> None:
            await until_asked(app, 3, gateway, 3)
            go_on.set()

        answers = await at_once(gateway, asked, meanwhile)
    assert [answer.body for answer in answers] == [b"-", b"a", b"-"]


async def test_a_dead_upstream_fails_those_who_wait_as_well(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port, {"retry": {"attempts": 1}}))
        answers = await asyncio.gather(*(ask(gateway.address, PLAIN) for _ in range(10)))
    assert {answer.error for answer in answers} == {"upstream-reset"}


# -- forgetting


async def test_purging_by_url_takes_that_url_and_every_variant_of_it(gateway: Gateway) -> None:
    async with upstream(response(FRESH, "vary: x-a")) as app:
        await gateway.serve(cached(app.port))
        for message in (get("/a", "X-A: 1"), get("/a", "X-A: 2"), get("/a?x"), get("/%7eb", host="TEST")):
            await ask(gateway.address, message)
        assert await gateway.supervisor.purge({"url": "http://test/a"}) == 2
        assert await gateway.supervisor.purge({"url": "http://TEST/~b"}) == 1
        assert await gateway.supervisor.purge({"url": "https://test/a?x"}) == 0
        assert await gateway.metric("cache_entries") == 1
        assert await gateway.supervisor.purge({"route": "other"}) == 0
        assert await gateway.supervisor.purge({"route": "all"}) == 1
        assert await gateway.metric("cache_bytes") == 0


async def test_the_store_is_bounded(gateway: Gateway) -> None:
    async with upstream(response(FRESH, body=b"x" * 50_000)) as app:
        await gateway.serve({**cached(app.port), "server": {"cache": {"memory": "1MiB"}}})
        for at in range(40):
            await ask(gateway.address, get(f"/{at}"))
        assert 10 < await gateway.metric("cache_entries") < 21
        assert await gateway.metric("cache_bytes") <= 1 << 20
        assert await gateway.metric("cache_evictions_total") > 0


# -- the short way of hits

ASKED = [
    PLAIN,
    get("/", "Cookie: a=1"),
    get("/", "Authorization: x"),
    get("/", "X-Api-Key: x"),
    get("/", "Cache-Control: no-cache"),
    get("/", "Cache-Control: max-stale"),
    get("/", "Cache-Control: only-if-cached"),
    get("/", "Pragma: no-cache"),
    get("/", "X-Original-URL: /admin"),
    get("/", 'If-None-Match: "v1"'),
    get("/", 'If-Match: "v1"'),
    get("/", "Range: bytes=0-1"),
    get("/?", "X-A: 1"),
    get("/", "X-A: 1"),
    get("/", "X-A: 2"),
    get("/", host="TEST"),
    get("/", "Cookie: toska_session=1"),
    request("GET", body=b"x"),
    get("/", version="HTTP/1.0"),
    get("/", "Connection: Upgrade", "Upgrade: websocket"),
    PLAIN,
]


@pytest.mark.parametrize(
    "fields",
    [
        ["cache-control: max-age=60"],
        ["cache-control: public, max-age=60"],
        ["cache-control: max-age=60", "vary: x-a"],
        ["cache-control: max-age=60, no-cache", 'etag: "v1"'],
        ["cache-control: max-age=60", "age: 70", 'etag: "v1"'],
        ["cache-control: private, max-age=60"],
        ["cache-control: max-age=60", "set-cookie: a=1"],
    ],
    ids=" ".join,
)
async def test_the_short_way_of_a_hit_answers_as_the_long_one_does(gateway: Gateway, fields: list[str]) -> None:
    told: list[list[object]] = []
    # A rule for responses is what makes hits take the long way.
    for policies in ({}, {"headers": {"response": {"remove": ["x-nothing"]}}}):
        await gateway.supervisor.purge({})
        async with upstream(response(*fields)) as app:
            await gateway.serve(cached(app.port, policies))
            answers = [await ask(gateway.address, message) for message in ASKED]
            said = [(a.value("cache-status") or b"").partition(b"ttl")[0] for a in answers]
            seen = [(a.status, a.error or a.body, sorted(a.names())) for a in answers]
            told.append([seen, said, len(app.requests)])
    assert told[0] == told[1]

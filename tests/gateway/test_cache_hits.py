"""What is seen of the cache over real connections: hits, their fields, and what requests ask of it."""

import pytest
from toska_tests.cached import FRESH, PLAIN, by_method, cached, reply, unframed
from toska_tests.gateways import Gateway
from toska_tests.raw_http import ask, connected, get, request, upstream

pytestmark = pytest.mark.usefixtures("nothing_stored")


async def outcomes(gateway: Gateway) -> dict[str, float]:
    found = await gateway.metrics()
    prefix = 'toska_gateway_cache_requests_total{route="all",outcome="'
    return {series[len(prefix) : -2]: value for series, value in found.items() if series.startswith(prefix)}


async def test_a_hit_says_its_age_and_that_it_is_one(gateway: Gateway) -> None:
    async with upstream(reply(FRESH, "age: 7", "x-a: 1", 'etag: "v1"')) as app:
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
    async with upstream(reply(FRESH, "cache-status: origin; hit")) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        hit = await ask(gateway.address, PLAIN)
    assert hit.values("cache-status")[0] == b"origin; hit"
    assert hit.values("cache-status")[1].startswith(b"toska; hit")


async def test_why_something_is_not_stored_is_said(gateway: Gateway) -> None:
    async with upstream(reply("cache-control: private")) as app:
        await gateway.serve(cached(app.port))
        answer = await ask(gateway.address, PLAIN)
    assert answer.value("cache-status") == b"toska; fwd=uri-miss; detail=private; fwd-status=200"


async def test_hits_pass_header_rules_and_keep_their_connection(gateway: Gateway) -> None:
    async with upstream(reply(FRESH, "server: x")) as app:
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
    async with upstream(by_method(lambda message: reply(FRESH, body=message.target.encode()))) as app:
        await gateway.serve(cached(app.port))
        for target in ("/a", "/b"):
            await ask(gateway.address, get(target))
        async with connected(gateway.address) as client:
            await client.send(get("/a") + get("/b") + get("/c") + get("/a"))
            assert [(await client.response()).body for _ in range(4)] == [b"/a", b"/b", b"/c", b"/a"]


async def test_an_http_1_0_client_is_served_from_the_store(gateway: Gateway) -> None:
    async with upstream(reply(FRESH)) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        hit = await ask(gateway.address, get("/", version="HTTP/1.0"))
        assert (hit.body, hit.value("connection")) == (b"hello", b"close")
    assert len(app.requests) == 1


async def test_what_comes_in_chunks_is_kept_and_has_a_length(gateway: Gateway) -> None:
    head = unframed("transfer-encoding: chunked")
    async with upstream(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") as app:
        await gateway.serve(cached(app.port))
        assert (await ask(gateway.address, PLAIN)).body == b"abcde"
        hit = await ask(gateway.address, PLAIN)
    assert (hit.body, hit.value("content-length")) == (b"abcde", b"5")


async def test_outcomes_are_counted_by_route(gateway: Gateway) -> None:
    before = await outcomes(gateway)
    async with upstream(reply(FRESH)) as app:
        await gateway.serve(cached(app.port))
        for message in (PLAIN, PLAIN, PLAIN, get("/", "Cache-Control: no-store")):
            await ask(gateway.address, message)
    after = await outcomes(gateway)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: count for name, count in grown.items() if count} == {"miss": 1, "hit": 2, "bypass": 1}
    assert await gateway.metric("cache_entries") == 1
    assert await gateway.metric("cache_bytes") > 1000
    assert await gateway.metric("requests_total", route="all", status="200") >= 4


# -- what requests ask for


async def test_a_client_that_wants_no_stored_response_gets_none(gateway: Gateway) -> None:
    async with upstream(reply(FRESH)) as app:
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
    async with upstream(reply(FRESH)) as app:
        await gateway.serve(cached(app.port, request_directives="ignore"))
        for field in ("x-a: 1", "Cache-Control: no-cache", "Cache-Control: no-store", "Pragma: no-cache"):
            await ask(gateway.address, get("/", field))
    assert len(app.requests) == 1


async def test_only_what_is_cached_means_that(gateway: Gateway) -> None:
    async with upstream(reply(FRESH)) as app:
        await gateway.serve(cached(app.port))
        refused = await ask(gateway.address, get("/", "Cache-Control: only-if-cached"))
        assert (refused.status, refused.error) == (504, "not-cached")
        await ask(gateway.address, PLAIN)
        assert (await ask(gateway.address, get("/", "Cache-Control: only-if-cached"))).body == b"hello"
    assert len(app.requests) == 1


async def test_if_match_is_for_the_origin_to_judge(gateway: Gateway) -> None:
    async with upstream(reply(FRESH, 'etag: "v1"')) as app:
        await gateway.serve(cached(app.port))
        for field in ("x-a: 1", 'If-Match: "v0"', "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"):
            await ask(gateway.address, get("/", field))
    assert len(app.requests) == 3


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
        async with upstream(reply(*fields)) as app:
            await gateway.serve(cached(app.port, policies))
            answers = [await ask(gateway.address, message) for message in ASKED]
            said = [(a.value("cache-status") or b"").partition(b"ttl")[0] for a in answers]
            seen = [(a.status, a.error or a.body, sorted(a.names())) for a in answers]
            told.append([seen, said, len(app.requests)])
    assert told[0] == told[1]


# -- forgetting


async def test_purging_by_url_takes_that_url_and_every_variant_of_it(gateway: Gateway) -> None:
    async with upstream(reply(FRESH, "vary: x-a")) as app:
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
    async with upstream(reply(FRESH, body=b"x" * 50_000)) as app:
        await gateway.serve({**cached(app.port), "server": {"cache": {"memory": "1MiB"}}})
        for at in range(40):
            await ask(gateway.address, get(f"/{at}"))
        assert 10 < await gateway.metric("cache_entries") < 21
        assert await gateway.metric("cache_bytes") <= 1 << 20
        assert await gateway.metric("cache_evictions_total") > 0

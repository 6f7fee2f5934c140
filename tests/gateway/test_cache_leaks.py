"""What one user was given is not given to another: over real connections, each way in which it could happen.

The upstream answers every request with a number of its own, so that whose response one is can be read off it.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from toska_tests.cached import bodies, numbered
from toska_tests.gateways import Gateway, route, single
from toska_tests.raw_http import Conversation, Message, ask, get, request, upstream

pytestmark = pytest.mark.usefixtures("nothing_stored")

NOTHING: Mapping[str, Any] = {}


def cached(port: int, **settings: Any) -> dict[str, Any]:
    return single(port, policies={"cache": {"default_ttl": "1h", **settings}})


ALICE, BOB = "Authorization: Bearer alice", "Authorization: Bearer bob"
PLAIN = get()


async def served(gateway: Gateway, fields: list[str], *requests: bytes, **settings: Any) -> list[bytes]:
    """Bodies of the answers to `requests`, one after the other, by an upstream that answers with `fields`."""
    async with upstream(numbered(*fields)) as app:
        await gateway.serve(cached(app.port, **settings))
        return await bodies(gateway, *requests)


async def test_the_cache_does_serve_what_may_be_shared(gateway: Gateway) -> None:
    assert await served(gateway, ["cache-control: max-age=60"], PLAIN, PLAIN) == [b"1", b"1"]


@pytest.mark.parametrize(
    "control",
    ["max-age=60", "max-age=60, immutable", "max-age=60, proxy-revalidate", "", "private, max-age=60", "no-store"],
)
@pytest.mark.parametrize("other", [[BOB], [ALICE], [], ["Authorization: Basic x"]])
async def test_an_answer_to_credentials_is_nobody_elses(gateway: Gateway, control: str, other: list[str]) -> None:
    fields = [f"cache-control: {control}"] if control else []
    asked = get("/", ALICE), get("/", *other), get("/", BOB)
    assert await served(gateway, fields, *asked) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "field", ["X-Api-Key", "X_Api_Key", "api_key", "apikey", "X-Auth-Token", "X-Session-Token", "X-Access-Token"]
)
async def test_keys_in_other_fields_are_credentials_too(gateway: Gateway, field: str) -> None:
    asked = get("/", f"{field}: a"), get("/", f"{field}: b"), PLAIN
    assert await served(gateway, ["cache-control: max-age=60"], *asked) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("control", ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"])
async def test_an_answer_to_credentials_is_shared_if_it_says_so(gateway: Gateway, control: str) -> None:
    asked = get("/", ALICE), get("/", BOB), PLAIN
    assert await served(gateway, [f"cache-control: {control}"], *asked) == [b"1", b"1", b"1"]


async def test_who_says_who_they_are_is_not_given_what_strangers_were(gateway: Gateway) -> None:
    asked = PLAIN, get("/", ALICE), get("/", "Cookie: sid=1"), PLAIN
    assert await served(gateway, ["cache-control: max-age=60"], *asked) == [b"1", b"2", b"3", b"1"]


@pytest.mark.parametrize("control", ["max-age=60", "max-age=60, must-revalidate", ""])
async def test_an_answer_to_cookies_is_nobody_elses(gateway: Gateway, control: str) -> None:
    fields = [f"cache-control: {control}"] if control else []
    asked = get("/", "Cookie: sid=1"), get("/", "Cookie: sid=2"), get("/", "Cookie: sid=1"), PLAIN
    assert await served(gateway, fields, *asked) == [b"1", b"2", b"3", b"4"]


async def test_cookies_can_be_said_not_to_matter(gateway: Gateway) -> None:
    asked = get("/", "Cookie: _ga=1"), get("/", "Cookie: _ga=2"), PLAIN
    assert await served(gateway, ["cache-control: max-age=60"], *asked, ignore_cookies=True) == [b"1", b"1", b"1"]


async def test_credentials_matter_also_where_cookies_do_not(gateway: Gateway) -> None:
    asked = get("/", "Cookie: _ga=1", ALICE), get("/", "Cookie: _ga=1", BOB), get("/", "Cookie: _ga=1")
    assert await served(gateway, ["cache-control: max-age=60"], *asked, ignore_cookies=True) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("name", ["set-cookie", "Set-Cookie", "SET-COOKIE", "set-cookie2"])
async def test_what_sets_a_cookie_is_not_kept(gateway: Gateway, name: str) -> None:
    fields = ["cache-control: public, max-age=60", f"{name}: sid=alice"]
    assert await served(gateway, fields, PLAIN, PLAIN) == [b"1", b"2"]


async def test_what_sets_a_cookie_is_kept_without_it_if_told(gateway: Gateway) -> None:
    async with upstream(numbered("cache-control: max-age=60", "set-cookie: sid=alice")) as app:
        await gateway.serve(cached(app.port, strip_set_cookie=True))
        first, second = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert first.value("set-cookie") == b"sid=alice"
    assert second.body == b"1"
    assert second.value("set-cookie") is None


async def test_cookies_that_come_with_a_validation_are_its_clients_alone(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            if message.value("if-none-match"):
                answer = (
                    b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncache-control: max-age=60\r\nset-cookie: sid=x\r\n\r\n'
                )
            else:
                answer = b'HTTP/1.1 200 OK\r\netag: "a"\r\ncache-control: max-age=0\r\ncontent-length: 1\r\n\r\na'
            await conversation.send(answer)

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        answers = [await ask(gateway.address, PLAIN) for _ in range(3)]
    assert [answer.body for answer in answers] == [b"a"] * 3
    assert [answer.value("set-cookie") for answer in answers] == [None, b"sid=x", None]
    assert len(app.requests) == 2


async def test_an_affinity_cookie_of_ours_is_nobody_elses(gateway: Gateway) -> None:
    async with upstream(numbered("cache-control: max-age=60")) as app:
        document = cached(app.port)
        document["clusters"]["app"]["affinity"] = {"cookie": "stick"}
        await gateway.serve(document)
        first, second = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert first.value("set-cookie") is not None
    assert (second.body, second.value("set-cookie")) == (b"1", None)


async def test_quotas_of_ours_are_counted_for_each_client_and_not_kept(gateway: Gateway) -> None:
    async with upstream(numbered("cache-control: max-age=60")) as app:
        policies = {"cache": {}, "rate_limit": {"requests": 9, "per": "1h", "key": "route"}}
        await gateway.serve(single(app.port, policies=policies))
        answers = [await ask(gateway.address, PLAIN) for _ in range(3)]
    assert [answer.body for answer in answers] == [b"1"] * 3
    assert [(answer.value("ratelimit") or b"")[:9] for answer in answers] == [b'"all";r=8', b'"all";r=7', b'"all";r=6']


@pytest.mark.parametrize("vary", ["*", "accept, *", "*, cookie"])
async def test_what_varies_by_everything_is_not_kept(gateway: Gateway, vary: str) -> None:
    assert await served(gateway, ["cache-control: public, max-age=60", f"vary: {vary}"], PLAIN, PLAIN) == [b"1", b"2"]


async def test_what_varies_is_given_only_to_requests_that_are_alike(gateway: Gateway) -> None:
    fields = ["cache-control: public, max-age=60", "vary: Accept-Language", "Vary: x-tenant"]
    asked = [
        get("/", "Accept-Language: de", "X-Tenant: a"),
        get("/", "Accept-Language: de", "X-Tenant: b"),
        get("/", "Accept-Language: en", "X-Tenant: a"),
        get("/", "Accept-Language: de"),
        get("/", "accept-language: DE", "x-tenant: a"),
        get("/", "Accept-Language: de", "X-Tenant: b"),
        PLAIN,
    ]
    assert await served(gateway, fields, *asked) == [b"1", b"2", b"3", b"4", b"1", b"2", b"5"]


async def test_what_comes_to_vary_is_no_longer_given_to_everybody(gateway: Gateway) -> None:
    """A page that is the same for all until somebody's request makes it differ."""

    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            vary = "vary: x-tenant\r\n" if message.value("x-tenant") else ""
            tenant = message.value("x-tenant") or b"-"
            head = f"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{vary}content-length: {len(tenant)}\r\n\r\n"
            await conversation.send(head.encode() + tenant)

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        fresh = "Cache-Control: no-cache"
        asked = [get("/", fresh, "X-Tenant: a"), get("/", "X-Tenant: b"), PLAIN, get("/", "X-Tenant: a"), PLAIN]
        assert await bodies(gateway, PLAIN, *asked) == [b"-", b"a", b"b", b"-", b"a", b"-"]


@pytest.mark.parametrize("control", ["private", "private, max-age=60", 'private="x-a", max-age=60', "no-store"])
async def test_private_is_private(gateway: Gateway, control: str) -> None:
    assert await served(gateway, [f"cache-control: {control}"], PLAIN, PLAIN) == [b"1", b"2"]


async def test_a_later_private_answer_ends_what_was_shared(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        controls = iter(["max-age=60", "private", "max-age=60"])
        for control in controls:
            await conversation.request()
            await conversation.send(
                f"HTTP/1.1 200 OK\r\ncache-control: {control}\r\ncontent-length: 1\r\n\r\nx".encode()
            )

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        for message in (PLAIN, get("/", "Cache-Control: no-cache"), PLAIN, PLAIN):
            await ask(gateway.address, message)
        assert len(app.requests) == 3


async def test_users_that_the_key_tells_apart_have_responses_of_their_own(gateway: Gateway) -> None:
    asked = [get("/", f"Cookie: theme=dark; sid={user}; _ga={at}") for at, user in enumerate("abab")]
    asked += [get("/", "Cookie: sid=a; sid=b"), PLAIN, get("/", "Cookie: sid="), PLAIN]
    found = await served(gateway, ["cache-control: max-age=60"], *asked, key={"cookies": ["sid"]})
    assert found == [b"1", b"2", b"1", b"2", b"3", b"4", b"5", b"4"]


async def test_tenants_that_the_key_tells_apart_have_responses_of_their_own(gateway: Gateway) -> None:
    asked = [get("/", f"X-Tenant: {tenant}") for tenant in "abab"]
    found = await served(gateway, ["cache-control: max-age=60"], *asked, key={"headers": ["x-tenant"]})
    assert found == [b"1", b"2", b"1", b"2"]


async def test_a_key_by_claims_serves_nobody_whose_token_has_none(gateway: Gateway) -> None:
    found = await served(gateway, ["cache-control: public, max-age=60"], PLAIN, PLAIN, key={"claims": ["sub"]})
    assert found == [b"1", b"2"]


async def test_a_key_makes_nothing_storable_that_is_not(gateway: Gateway) -> None:
    asked = get("/", ALICE), get("/", ALICE)
    found = await served(gateway, ["cache-control: private, max-age=60"], *asked, key={"headers": ["authorization"]})
    assert found == [b"1", b"2"]


@pytest.mark.parametrize(
    "field",
    ["X-HTTP-Method-Override: POST", "X_HTTP_Method_Override: POST", "X-Original-URL: /admin", "X-Rewrite-URL: /admin"],
)
async def test_requests_that_mean_something_else_than_they_say_are_not_kept(gateway: Gateway, field: str) -> None:
    asked = get("/", field), PLAIN, get("/", field), PLAIN
    assert await served(gateway, ["cache-control: public, max-age=60"], *asked) == [b"1", b"2", b"3", b"2"]


async def test_a_body_that_is_in_no_key_is_answered_by_the_upstream(gateway: Gateway) -> None:
    asked = request("GET", body=b"poison"), PLAIN, request("GET", body=b"poison")
    assert await served(gateway, ["cache-control: public, max-age=60"], *asked) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (get("/a"), get("/b")),
        (get("/a?x=1"), get("/a?x=2")),
        (get("/a"), get("/a?")),
        (get("/a", host="one"), get("/a", host="two")),
        (get("/a%2fb"), get("/a/b")),
    ],
)
async def test_other_urls_have_other_responses(gateway: Gateway, one: bytes, other: bytes) -> None:
    found = await served(
        gateway, ["cache-control: public, max-age=60"], one, other, one, other, request_directives="obey"
    )
    assert len({found[0], found[1]}) == 2


async def test_what_trusted_proxies_say_of_the_request_is_in_the_key(gateway: Gateway) -> None:
    async with upstream(numbered("cache-control: public, max-age=60")) as app:
        await gateway.serve({**cached(app.port), "server": {"trusted_proxies": ["127.0.0.1/32"]}})
        told = ["X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x"]
        found = await bodies(gateway, PLAIN, *(get("/", field) for field in told), PLAIN)
    assert found == [b"1", b"2", b"3", b"4", b"5", b"1"]


async def test_routes_have_responses_of_their_own(gateway: Gateway) -> None:
    async with upstream(numbered("cache-control: public, max-age=60")) as app:
        document = cached(app.port)
        policies: dict[str, Any] = {"cache": {}}
        document["routes"].append(route("beta", policies=policies))
        document["routes"][-1]["match"]["headers"] = {"x-beta": "1"}
        await gateway.serve(document)
        assert await bodies(gateway, PLAIN, get("/", "X-Beta: 1"), PLAIN, get("/", "X-Beta: 1")) == [
            b"1",
            b"2",
            b"1",
            b"2",
        ]


async def test_one_clusters_responses_are_not_anothers(gateway: Gateway) -> None:
    kept = "cache-control: max-age=60"
    async with upstream(numbered(kept)) as one, upstream(numbered(kept)) as two:
        document = cached(one.port)
        document["clusters"]["other"] = {"endpoints": [{"address": "127.0.0.1", "port": two.port}]}
        await gateway.serve(document)
        await ask(gateway.address, PLAIN)
        document["routes"][0]["to"] = "other"
        await gateway.serve(document)
        await ask(gateway.address, PLAIN)
        assert len(two.requests) == 1


async def test_tokens_of_the_mesh_go_past_the_cache(gateway: Gateway) -> None:
    asked = get("/", "Cookie: toska_session=x"), get("/?token=toska_join_x"), PLAIN
    found = await served(gateway, ["cache-control: public, max-age=60"], *asked, get("/?token=toska_join_x"))
    assert found == [b"1", b"2", b"3", b"4"]


async def test_nothing_that_is_kept_holds_a_connections_own_fields(gateway: Gateway) -> None:
    fields = ["cache-control: max-age=60", "connection: x-hop", "x-hop: secret", "keep-alive: timeout=5"]
    async with upstream(numbered(*fields)) as app:
        await gateway.serve(cached(app.port))
        answers: list[Message] = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert answers[1].body == b"1"
    assert {"x-hop", "keep-alive"}.isdisjoint(answers[1].names())

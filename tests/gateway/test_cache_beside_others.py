"""The cache beside the route's other policies: tokens, versions, compression, CORS, fallbacks, and the access log."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from toska_tests.cached import bodies, numbered
from toska_tests.gateways import Gateway, cluster, running_gateway, single
from toska_tests.issuers import SigningKey, jwt_policy
from toska_tests.raw_http import Conversation, ask, get, request, response, upstream
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("nothing_stored")

UNRULY = Path(__file__).parents[1] / "toska_tests" / "unruly"
KEY = SigningKey("ES256")
FRESH = "cache-control: max-age=60"
PUBLIC = "cache-control: public, max-age=60"


def token(sub: str) -> str:
    return f"Authorization: Bearer {KEY.token(sub=sub)}"


@pytest.mark.parametrize("jwt", [{}, {"forward_token": False}, {"forward_token": False, "forward": {"x-user": "sub"}}])
async def test_a_verified_users_response_is_nobody_elses(gateway: Gateway, jwt: dict[str, Any]) -> None:
    """Also where the upstream sees no token any more, and so has no Authorization to vary by."""
    async with upstream(numbered(FRESH)) as app:
        policies = {"auth": {"jwt": jwt_policy(KEY, **jwt)}, "cache": {}}
        await gateway.serve(single(app.port, policies=policies))
        alice, bob = token("alice"), token("bob")
        assert await bodies(gateway, get("/", alice), get("/", bob), get("/", alice)) == [b"1", b"2", b"3"]


async def test_a_user_whose_token_is_a_cookie_is_a_user(gateway: Gateway) -> None:
    async with upstream(numbered(FRESH)) as app:
        jwt = jwt_policy(KEY, token_from={"cookie": "session"})
        await gateway.serve(single(app.port, policies={"auth": {"jwt": jwt}, "cache": {"ignore_cookies": True}}))
        asked = [get("/", f"Cookie: session={KEY.token(sub=sub)}") for sub in ("alice", "bob")]
        assert await bodies(gateway, *asked) == [b"1", b"2"]


async def test_nobody_comes_past_the_door_to_what_is_stored(gateway: Gateway) -> None:
    async with upstream(numbered(PUBLIC)) as app:
        policies = {"auth": {"jwt": jwt_policy(KEY), "scopes": ["read"]}, "cache": {}}
        await gateway.serve(single(app.port, policies=policies))
        reader = f"Authorization: Bearer {KEY.token(sub='alice', scope='read')}"
        assert await bodies(gateway, get("/", reader), get("/", reader)) == [b"1", b"1"]
        refused = [await ask(gateway.address, message) for message in (get(), get("/", token("bob")))]
        assert [answer.status for answer in refused] == [401, 403]


async def test_a_key_by_claim_has_a_response_for_each_user(gateway: Gateway) -> None:
    async with upstream(numbered(PUBLIC)) as app:
        policies = {"auth": {"jwt": jwt_policy(KEY)}, "cache": {"key": {"claims": ["sub"]}}}
        await gateway.serve(single(app.port, policies=policies))
        alice, bob, nobody = token("alice"), token("bob"), f"Authorization: Bearer {KEY.token(sub=None)}"
        asked = [get("/", alice), get("/", bob), get("/", alice), get("/", bob), get("/", nobody), get("/", nobody)]
        assert await bodies(gateway, *asked) == [b"1", b"2", b"1", b"2", b"3", b"4"]


async def test_versions_have_responses_of_their_own(gateway: Gateway) -> None:
    """Of one cluster too, which is told the version in a header that clients never see in a URL."""
    async with upstream(numbered(PUBLIC)) as app:
        versions: dict[str, Any] = {"by": ["header"], "default": "2", "known": {"1": {}, "2": {}}}
        await gateway.serve(single(app.port, policies={"versions": versions, "cache": {}}))
        old = get("/", "X-API-Version: 1")
        assert await bodies(gateway, old, get(), old, get()) == [b"1", b"2", b"1", b"2"]


async def test_what_is_stored_is_compressed_for_each_as_they_like(gateway: Gateway) -> None:
    text = b"all the same " * 200

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(response(200, PUBLIC, 'etag: "v1"', "content-type: text/plain", body=text))

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={"compress": {"algorithms": ["gzip"]}, "cache": {}}))
        zipped, plain, again = [
            await ask(gateway.address, message)
            for message in (get("/", "Accept-Encoding: gzip"), get(), get("/", "Accept-Encoding: gzip"))
        ]
        assert [gzip.decompress(answer.body) for answer in (zipped, again)] == [text, text]
        assert plain.body == text
        etag = (again.value("etag") or b"").decode()
        assert etag == 'W/"v1"'
        same = await ask(gateway.address, get("/", "Accept-Encoding: gzip", f"If-None-Match: {etag}"))
        assert (same.status, same.body) == (304, b"")
        assert len(app.requests) == 1


async def test_origins_are_told_each_for_itself_that_they_may_read_what_is_stored(gateway: Gateway) -> None:
    async with upstream(numbered(PUBLIC, "access-control-allow-origin: https://wrong.example")) as app:
        cors = {"allow_origins": ["https://a.example", "https://b.example"], "allow_methods": ["GET"]}
        await gateway.serve(single(app.port, policies={"cors": cors, "cache": {}}))
        origins = ["https://a.example", "https://b.example", "https://c.example"]
        answers = [await ask(gateway.address, get("/", f"Origin: {origin}")) for origin in origins * 2]
    allowed = [answer.value("access-control-allow-origin") for answer in answers]
    assert allowed == [b"https://a.example", b"https://b.example", None] * 2
    assert {answer.body for answer in answers} == {b"1"}


async def test_what_a_fallback_answers_is_not_kept_for_the_cluster_that_is_away(gateway: Gateway) -> None:
    async def failing(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(response(503, body=b"no"))

    async with upstream(failing) as app, upstream(numbered(PUBLIC)) as other:
        policies = {"retry": {"attempts": 1}, "fallback": {"cluster": "other", "on": ["503"]}, "cache": {}}
        document = single(app.port, policies=policies)
        document["clusters"]["other"] = cluster(other.port)
        await gateway.serve(document)
        assert await bodies(gateway, get(), get()) == [b"1", b"2"]


async def test_a_stale_response_goes_before_a_fallback(gateway: Gateway) -> None:
    fields = ["cache-control: max-age=60, stale-if-error=60", "age: 70"]
    async with upstream(numbered(*fields)) as app:
        policies = {"fallback": {"respond": {"body": "static"}}, "cache": {}}
        await gateway.serve(single(app.port, policies=policies))
        assert await bodies(gateway, get()) == [b"1"]
    assert await bodies(gateway, get(), get("/other")) == [b"1", b"static"]


async def test_a_user_whom_a_filter_has_introduced_is_a_user() -> None:
    """Credentials that a filter takes away were there, and what the upstream says to a name is that user's."""

    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            assert (message.value("cookie"), message.value("authorization")) == (None, None)
            await conversation.send(response(200, FRESH, body=message.value("x-user") or b""))

    async with upstream(script) as app, running_gateway(filters=UNRULY) as gateway:
        policies: dict[str, Any] = {"filters": ["unruly_filters:Introduce"], "cache": {}}
        await gateway.serve(single(app.port, policies=policies))
        fields = ["Cookie: user=alice", "Cookie: user=bob", "Authorization: Bearer carol", "Authorization: Bearer dave"]
        asked = [get("/", field) for field in fields]
        assert await bodies(gateway, get(), *asked, get()) == [
            b"nobody", b"alice", b"bob", b"carol", b"dave", b"nobody",
        ]  # fmt: skip
        assert len(app.requests) == 5


async def test_hits_are_in_the_access_log(gateway: Gateway, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with upstream(numbered(FRESH)) as app:
        document = single(app.port, policies={"cache": {}})
        document["server"]["access_log"] = {"path": str(log)}
        await gateway.serve(document)
        await bodies(gateway, get("/seen"), get("/seen"))

        def both() -> bool:
            return log.exists() and log.read_text().count("\n") == 2

        await wait_until(both, what="two lines of the log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["status"], line["route"]) for line in lines] == [(200, "all")] * 2


async def test_a_refresh_asks_for_the_path_that_the_version_left(gateway: Gateway) -> None:
    stale = response(200, "cache-control: max-age=0, stale-while-revalidate=60", 'etag: "a"', body=b"x")
    async with upstream(stale) as app:
        versions: dict[str, Any] = {"known": {"1": {}}, "by": ["path"], "strip_path": True}
        await gateway.serve(single(app.port, policies={"versions": versions, "cache": {}}))
        assert await bodies(gateway, get("/v1/items"), get("/v1/items")) == [b"x", b"x"]
        await wait_until(lambda: len(app.requests) == 2, what="the refresh")
        assert [message.target for message in app.requests] == ["/items", "/items"]


@pytest.mark.parametrize("failure", [response(503), b""], ids=["503", "reset"])
async def test_what_stands_in_for_errors_does_not_hide_them_from_ejection(gateway: Gateway, failure: bytes) -> None:
    given = 0

    async def script(conversation: Conversation) -> None:
        nonlocal given
        while True:
            await conversation.request()
            given += 1
            if given > 1 and not failure:
                return
            await conversation.send(response(200, "cache-control: max-age=0", 'etag: "a"') if given == 1 else failure)

    async with upstream(script) as app:
        document = single(app.port, policies={"retry": {"attempts": 1}, "cache": {"stale_if_error": "1h"}})
        document["clusters"]["app"] = cluster(app.port, outlier={"consecutive_gateway_errors": 3})
        await gateway.serve(document)
        before = await gateway.metric("ejections_total")
        answers = [await ask(gateway.address, get("/", "cache-control: max-age=0")) for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert await gateway.metric("ejections_total") == before + 1


async def test_a_change_that_may_have_happened_makes_what_is_stored_out_of_date(gateway: Gateway) -> None:
    given = 0

    async def script(conversation: Conversation) -> None:
        nonlocal given
        while True:
            message = await conversation.request()
            if message.method == "POST":
                return  # done, and broken off before it could say so
            given += 1
            await conversation.send(response(200, FRESH, body=str(given).encode()))

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies={"cache": {}}))
        assert await bodies(gateway, get(), get()) == [b"1", b"1"]
        assert (await ask(gateway.address, request("POST", body=b"change"))).status == 502
        assert await bodies(gateway, get()) == [b"2"]


async def test_a_refresh_asks_for_the_whole_on_behalf_of_who_asked_for_a_part(gateway: Gateway) -> None:
    stale = response(200, "cache-control: max-age=1, stale-while-revalidate=60", "age: 5", body=b"whole")
    async with upstream(stale) as app:
        await gateway.serve(single(app.port, policies={"cache": {}}))
        parts = [await ask(gateway.address, message) for message in (get(), get("/", "range: bytes=0-1"))]
        assert [answer.body for answer in parts] == [b"whole", b"wh"]
        await wait_until(lambda: len(app.requests) == 2, what="the refresh")
        assert app.requests[1].value("range") is None

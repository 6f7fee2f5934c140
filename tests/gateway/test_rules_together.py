"""Rules of one route beside one another: what one of them does holds for what another answers."""

import json
from typing import Any

import pytest
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_tests.gateways import Gateway, cluster, single
from toska_tests.issuers import SigningKey, jwt_policy
from toska_tests.raw_http import Conversation, ask, connected, get, request, response, upstream
from toska_tests.waiting import wait_until

SHOP, OTHER = "https://shop.example", "https://other.example"
CORS: dict[str, Any] = {"allow_origins": [SHOP, OTHER], "allow_methods": ["PUT"], "allow_headers": ["authorization"]}
FRESH = response(200, "Cache-Control: max-age=60", "Access-Control-Allow-Origin: https://evil.example", body=b"fresh")


async def test_a_preflight_shows_no_token_and_a_refusal_can_be_read_by_the_page(gateway: Gateway) -> None:
    async with upstream() as app:
        policies = {"cors": CORS, "auth": {"jwt": jwt_policy(SigningKey())}}
        await gateway.serve(single(app.port, policies=policies))
        fields = (
            f"Origin: {SHOP}",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: authorization",
        )
        assert (await ask(gateway.address, request("OPTIONS", "/", *fields))).status == 204
        refused = await ask(gateway.address, get("/", f"Origin: {SHOP}"))
        assert refused.status == 401
        assert refused.value("access-control-allow-origin") == SHOP.encode()
    assert app.requests == []


async def test_what_is_kept_is_given_to_each_page_with_its_own_leave(gateway: Gateway) -> None:
    async with upstream(FRESH) as app:
        await gateway.serve(single(app.port, policies={"cors": CORS, "cache": {}, "security_headers": True}))
        async with connected(gateway.address) as client:
            for origin in (SHOP, OTHER, SHOP):
                answer = await client.ask(get("/a", f"Origin: {origin}"))
                assert answer.body == b"fresh"
                assert answer.values("access-control-allow-origin") == [origin.encode()]
                assert answer.value("x-frame-options") == b"SAMEORIGIN"
            answer = await client.ask(get("/a", "Origin: https://evil.example"))
            assert answer.values("access-control-allow-origin") == []
    assert len(app.requests) == 1


@pytest.mark.parametrize(
    ("by", "asked"),
    [
        ("header", "X-API-Version: {}"),
        ("media_type", "Accept: application/json;v={}"),
        ("media_type", "Accept: application/vnd.shop.v{}+json"),
    ],
)
async def test_what_is_kept_of_one_version_is_not_given_as_another(gateway: Gateway, by: str, asked: str) -> None:
    async def by_version(conversation: Conversation) -> None:
        while True:
            version = (await conversation.request()).value("x-api-version") or b""
            await conversation.send(response(200, "Cache-Control: max-age=60", body=b"version " + version))

    async with upstream(by_version) as app:
        versions: dict[str, Any] = {"by": [by], "known": {"1": {}, "2": {}}}
        await gateway.serve(single(app.port, policies={"versions": versions, "cache": {}}))
        for version in ("1", "2", "1", "2"):
            answer = await ask(gateway.address, get(f"/{len(asked)}", asked.format(version)))
            assert answer.body == f"version {version}".encode()
    assert len(app.requests) == 2


async def test_a_fault_on_purpose_hits_what_is_kept_too_and_no_fallback_hides_it(gateway: Gateway) -> None:
    async with upstream(FRESH) as app:
        policies = {
            "cache": {"stale_if_error": "1h"},
            "fallback": {"respond": {"body": "fallback"}},
            "fault": {"abort": {"status": 503}, "headers": {"x-chaos": "on"}},
        }
        await gateway.serve(single(app.port, policies=policies))
        assert (await ask(gateway.address, get("/a"))).body == b"fresh"
        answer = await ask(gateway.address, get("/a", "X-Chaos: on"))
        assert (answer.status, answer.error) == (503, "fault-injected")


async def test_a_request_that_is_tried_again_is_copied_once_and_rewritten_the_same(gateway: Gateway) -> None:
    tries: list[str] = []

    async def second_time(conversation: Conversation) -> None:
        while True:
            tries.append((await conversation.request()).target)
            await conversation.send(response(503 if len(tries) == 1 else 200, body=b"ok"))

    async with upstream(second_time) as app, upstream() as shadow:
        policies = {
            "retry": {"attempts": 2, "retry_on": ["503"]},
            "rewrite": {"prefix": "/v2"},
            "mirror": {"cluster": "shadow"},
        }
        document = single(app.port, policies=policies)
        document["clusters"]["shadow"] = cluster(shadow.port)
        await gateway.serve(document)
        assert (await ask(gateway.address, get("/a"))).body == b"ok"
        await wait_until(lambda: len(shadow.requests) == 1, what="the copy has arrived")
        await gateway.until_quiet()
    assert tries == ["/v2/a", "/v2/a"]
    assert [copy.target for copy in shadow.requests] == ["/v2/a"]


async def test_what_is_answered_out_of_the_cache_is_not_copied(gateway: Gateway) -> None:
    async with upstream(FRESH) as app, upstream() as shadow:
        document = single(app.port, policies={"cache": {}, "mirror": {"cluster": "shadow"}})
        document["clusters"]["shadow"] = cluster(shadow.port)
        await gateway.serve(document)
        async with connected(gateway.address) as client:
            for _ in range(3):
                assert (await client.ask(get("/copied"))).body == b"fresh"
        await wait_until(lambda: len(shadow.requests) == 1, what="the copy has arrived")
        await gateway.until_quiet()
    assert len(shadow.requests) == 1


async def test_all_rules_at_once_serve(gateway: Gateway) -> None:
    async with upstream() as app:
        policies = {
            "ip": {"allow": ["127.0.0.0/8"]},
            "cors": CORS,
            "security_headers": True,
            "versions": {"by": ["path"], "known": {"1": {"deprecated": "2026-01-01"}}, "strip_path": True},
            "rate_limit": {"requests": 100, "per": "1h"},
            "fault": {"delay": {"fixed": "1ms"}},
            "mirror": {"cluster": "app", "methods": ["POST"]},
            "rewrite": {"prefix": "/v2", "host": "inner.example"},
            "headers": {"request": {"set": {"x-client": "{client_ip}"}}},
            "body": {"max_bytes": 10},
        }
        document = single(app.port)
        document["routes"][0] |= {"match": {"path_prefix": "/api", "methods": ["POST"]}, "policies": policies}
        # As a router would have it: from JSON that it wrote itself.
        table = build_table(load_document(json.dumps(document), source="test"))
        again = type(table).model_validate_json(table.model_dump_json())
        await gateway.supervisor.apply(build_snapshot(again))
        answer = await ask(gateway.address, request("POST", "/api/v1/a", f"Origin: {SHOP}", body=b"0123456789"))
        await wait_until(lambda: len(app.requests) == 2, what="the original and its copy have arrived")
    assert answer.status == 200
    assert {name: answer.value(name) for name in ("deprecation", "x-toska-fault", "access-control-allow-origin")} == {
        "deprecation": b"@1767225600",
        "x-toska-fault": b"delay",
        "access-control-allow-origin": SHOP.encode(),
    }
    for sent in app.requests:
        assert (sent.target, sent.value("host"), sent.value("x-client")) == ("/v2/a", b"inner.example", b"127.0.0.1")
        assert (sent.body, sent.value("x-api-version")) == (b"0123456789", b"1")

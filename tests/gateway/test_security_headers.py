"""Fields that make browsers careful: on every answer, once, and HSTS over TLS only."""

from typing import Any

import pytest
from toska_tests.gateways import Gateway, single
from toska_tests.raw_http import Message, ask, get, response, upstream

DEFAULTS = {
    "x-content-type-options": b"nosniff",
    "x-frame-options": b"SAMEORIGIN",
    "referrer-policy": b"strict-origin-when-cross-origin",
}
NAMES = {*DEFAULTS, "strict-transport-security", "permissions-policy", "content-security-policy"}


def told(answer: Message) -> dict[str, bytes]:
    return {name: answer.value(name) or b"" for name in answer.names() if name in NAMES}


def trusting(port: int, policies: dict[str, Any]) -> dict[str, Any]:
    document = single(port, policies=policies)
    return {**document, "server": {"trusted_proxies": ["127.0.0.1/32"]}}


async def test_true_is_all_defaults_on_answers_of_the_upstream_and_on_errors(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"security_headers": True}))
        assert told(await ask(gateway.address, get())) == DEFAULTS
    answer = await ask(gateway.address, get())
    assert answer.error == "upstream-connect-failed"
    assert told(answer) == DEFAULTS


async def test_each_field_can_be_set_and_left_out(gateway: Gateway) -> None:
    fields = {
        "hsts": False,
        "frame_options": "DENY",
        "content_type_options": False,
        "referrer_policy": None,
        "permissions_policy": "camera=()",
        "content_security_policy": "default-src 'self'",
        "content_security_policy_report_only": "default-src 'none'",
        "cross_origin_opener_policy": "same-origin",
        "cross_origin_embedder_policy": "require-corp",
        "cross_origin_resource_policy": "same-site",
    }
    async with upstream() as app:
        await gateway.serve(trusting(app.port, {"security_headers": fields}))
        answer = await ask(gateway.address, get("/", "X-Forwarded-Proto: https"))
    assert told(answer) == {
        "x-frame-options": b"DENY",
        "permissions-policy": b"camera=()",
        "content-security-policy": b"default-src 'self'",
    }
    assert answer.value("content-security-policy-report-only") == b"default-src 'none'"
    assert answer.value("cross-origin-opener-policy") == b"same-origin"
    assert answer.value("cross-origin-embedder-policy") == b"require-corp"
    assert answer.value("cross-origin-resource-policy") == b"same-site"


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        (True, b"max-age=31536000"),
        (
            {"max_age": "730d", "include_subdomains": True, "preload": True},
            b"max-age=63072000; includeSubDomains; preload",
        ),
        ({"max_age": "0s"}, b"max-age=0"),
    ],
)
async def test_hsts_is_said_to_those_who_came_over_tls(gateway: Gateway, hsts: Any, value: bytes) -> None:
    async with upstream() as app:
        await gateway.serve(trusting(app.port, {"security_headers": {"hsts": hsts}}))
        answer = await ask(gateway.address, get("/", "X-Forwarded-Proto: https"))
        assert answer.value("strict-transport-security") == value
        for fields in (["X-Forwarded-Proto: http"], []):
            assert (await ask(gateway.address, get("/", *fields))).value("strict-transport-security") is None


async def test_a_stranger_who_says_that_it_came_over_tls_is_not_believed(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"security_headers": True}))
        answer = await ask(gateway.address, get("/", "X-Forwarded-Proto: https"))
    assert answer.value("strict-transport-security") is None


async def test_the_upstream_has_the_last_word_unless_it_is_overridden(gateway: Gateway) -> None:
    says = ["X-FRAME-OPTIONS: DENY", "Referrer-Policy: no-referrer", "Strict-Transport-Security: max-age=1"]
    async with upstream(response(200, *says, body=b"ok")) as app:
        await gateway.serve(trusting(app.port, {"security_headers": True}))
        answer = await ask(gateway.address, get("/", "X-Forwarded-Proto: https"))
        assert told(answer) == {
            "x-content-type-options": b"nosniff",
            "x-frame-options": b"DENY",
            "referrer-policy": b"no-referrer",
            "strict-transport-security": b"max-age=1",
        }
        await gateway.serve(trusting(app.port, {"security_headers": {"override": True}}))
        answer = await ask(gateway.address, get("/", "X-Forwarded-Proto: https"))
        assert told(answer) == {**DEFAULTS, "strict-transport-security": b"max-age=31536000"}


async def test_routes_that_answer_themselves_are_careful_too(gateway: Gateway) -> None:
    policies = {"security_headers": True}
    routes = [
        {"name": "a", "match": {"path": "/a"}, "respond": {"body": "hello"}, "policies": policies},
        {"name": "b", "match": {"path": "/b"}, "redirect": {"to": "/a"}, "policies": policies},
    ]
    await gateway.serve({"routes": routes})
    for path in ("/a", "/b"):
        assert told(await ask(gateway.address, get(path))) == DEFAULTS

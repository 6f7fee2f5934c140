"""Rewritten paths and hosts: what the upstream is asked for is always a normal path, and the rule's own."""

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toska_gateway.worker.edge.rewriting import PathRewrite
from toska_gateway.worker.http1 import BadMessage, encode_path, normalize_path
from toska_tests.gateways import Gateway, cluster
from toska_tests.raw_http import ask, get, upstream


def one_route(port: int, match: dict[str, Any], rewrite: dict[str, Any], **policies: Any) -> dict[str, Any]:
    policies = {"rewrite": rewrite, **policies}
    return {
        "clusters": {"app": cluster(port)},
        "routes": [{"name": "one", "match": match, "to": "app", "policies": policies}],
    }


@pytest.mark.parametrize(
    ("prefix", "new", "asked", "sent"),
    [
        ("/orders", "/v2", "/orders/1?a=%2F", "/v2/1?a=%2F"),
        ("/orders", "/v2/", "/orders", "/v2"),
        ("/orders/", "/v2", "/orders/", "/v2/"),
        ("/orders", "/", "/orders", "/"),
        ("/orders", "/", "/orders/1", "/1"),
        ("/", "/v2", "/", "/v2/"),
        ("/", "/v2", "/a", "/v2/a"),
        ("/orders", "/äö", "/orders/%C3%A9", "/%C3%A4%C3%B6/%C3%A9"),
    ],
)
async def test_a_prefix_takes_the_place_of_the_matched_one(
    gateway: Gateway, prefix: str, new: str, asked: str, sent: str
) -> None:
    async with upstream() as app:
        await gateway.serve(one_route(app.port, {"path_prefix": prefix}, {"prefix": new}))
        assert (await ask(gateway.address, get(asked))).status == 200
    assert app.requests[0].target == sent
    assert app.requests[0].value("x-forwarded-prefix") is None


@pytest.mark.parametrize(
    ("regex", "replacement", "asked", "sent"),
    [
        (r"/users/(\d+)/orders", r"/orders/by/\1", "/users/7/orders?x=1", "/orders/by/7?x=1"),
        (r"/users/(\d+)/orders", r"/orders/by/\1", "/users/x/orders", "/users/x/orders"),
        (r"/(?P<shop>[^/]+)/(.*)", r"/\g<shop>/v2/\2", "/tea/a/b/", "/tea/v2/a/b/"),
        (r"/a(.*)", r"/b/\1", "/a/c", "/b/c"),
        (r"/a(/.*)?", r"/\1", "/a", "/"),
        (r"/(.*)", r"/x/\1", "/%20%C3%A9%25", "/x/%20%C3%A9%25"),
    ],
)
async def test_a_path_that_fits_is_replaced_and_others_stay(
    gateway: Gateway, regex: str, replacement: str, asked: str, sent: str
) -> None:
    async with upstream() as app:
        await gateway.serve(one_route(app.port, {"path_prefix": "/"}, {"regex": regex, "replacement": replacement}))
        assert (await ask(gateway.address, get(asked))).status == 200
    assert app.requests[0].target == sent


async def test_the_matchs_own_expression_can_be_referred_to(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(one_route(app.port, {"path_regex": r"/(\w+)\.php"}, {"replacement": r"/\1"}))
        assert (await ask(gateway.address, get("/shop.php"))).status == 200
        assert (await ask(gateway.address, get("/shop.html"))).status == 404
    assert [message.target for message in app.requests] == ["/shop"]


async def test_a_rewrite_cannot_be_used_to_climb_out_of_the_rules_own_prefix(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(
            one_route(app.port, {"path_prefix": "/"}, {"regex": r"/x(.*)", "replacement": r"/files/\1"})
        )
        for asked in ("/x../secret", "/x..", "/x.", "/x./"):
            answer = await ask(gateway.address, get(asked))
            assert (answer.status, answer.error) == (400, "bad-target"), asked
        assert app.requests == []
        assert (await ask(gateway.address, get("/x..y/z"))).status == 200
    assert app.requests[0].target == "/files/..y/z"


async def test_escaped_slashes_stay_escaped_where_they_are_kept(gateway: Gateway) -> None:
    async with upstream() as app:
        rewrite = {"regex": r"/p/([^/]+)", "replacement": r"/packages/\1"}
        await gateway.serve(one_route(app.port, {"path_prefix": "/p"}, rewrite, escaped_slashes="keep"))
        assert (await ask(gateway.address, get("/p/a%2Fb%5Cc"))).status == 200
        rewrite = {"regex": r"/p/x(.*)", "replacement": r"/packages/\1"}
        await gateway.serve(one_route(app.port, {"path_prefix": "/p"}, rewrite, escaped_slashes="keep"))
        assert (await ask(gateway.address, get("/p/x..%2Fb"))).error == "bad-target"
    assert [message.target for message in app.requests] == ["/packages/a%2Fb%5Cc"]


async def test_the_host_can_be_another_and_the_upstream_is_told_which_was_asked_for(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(one_route(app.port, {"path_prefix": "/"}, {"host": "legacy.internal:8443"}))
        assert (await ask(gateway.address, get("/a", host="shop.example"))).status == 200
    [sent] = app.requests
    assert sent.value("host") == b"legacy.internal:8443"
    assert sent.value("x-forwarded-host") == b"shop.example"
    assert b'host="shop.example"' in (sent.value("forwarded") or b"")
    assert sent.target == "/a"


async def test_a_gate_that_waited_does_not_lose_a_refusal(gateway: Gateway) -> None:
    async with upstream() as app:
        rewrite = {"regex": r"/x(.*)", "replacement": r"/files/\1"}
        fault = {"delay": {"fixed": "1ms"}}
        await gateway.serve(one_route(app.port, {"path_prefix": "/"}, rewrite, fault=fault))
        answer = await ask(gateway.address, get("/x../secret"))
    assert (answer.status, answer.error) == (400, "bad-target")


NORMAL = re.compile(rb"/(?:[^/\x00-\x1f\x7f]+(?:/[^/\x00-\x1f\x7f]+)*/?)?")
PIECES = st.lists(st.sampled_from(["a", "x", ".", "..", "...", "%2F", "%5C", "%2e", "/", "é", "%25", "%FF", " ", "\\"]))
RULES = st.sampled_from(
    [
        (r"/a(.*)", r"/b/\1"),
        (r"/(.*?)a(.*)", r"/\1\2"),
        (r"(.*)", r"/\1/\1"),
        (r"/([^/]*)(.*)", r"/\2/\1"),
        (r"/.(.*)", r"/.\1"),
        (r"(.*).", r"/\1."),
        (r"/x?(.*)x", r"/\1"),
    ]
)


@given(pieces=PIECES, rule=RULES)
def test_what_comes_out_of_a_rewrite_is_a_normal_path_or_a_refusal(pieces: list[str], rule: tuple[str, str]) -> None:
    written = ("/" + "".join(pieces)).replace(" ", "%20").replace("é", "%C3%A9")
    try:
        path = normalize_path(written.encode())
    except BadMessage:
        assume(False)
        raise
    rewrite = PathRewrite({"prefix": None, "regex": rule[0], "replacement": rule[1]}, {})
    try:
        sent = rewrite.apply(path)
    except BadMessage as error:
        assert error.code == "bad-target"
        return
    # As it travels it is read back as just this path: nothing an upstream resolves is left in it.
    assert normalize_path(encode_path(sent)) == sent
    for slash in (b"\x01", b"\x02", b"\\"):
        assert {b".", b".."}.isdisjoint(sent.replace(slash, b"/").split(b"/"))

"""CORS as browsers see it: preflights, answers, and what an upstream says about it itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.edge.cors import Cors
from toska_gateway.worker.explaining import explain
from toska_tests.gateways import Gateway, idle_plane, plane_here, single
from toska_tests.raw_http import Message, ask, connected, get, request, response, upstream

SHOP = "https://shop.example"
RULES: dict[str, Any] = {
    "allow_origins": [SHOP, "https://*.partner.example"],
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-a", "content-type"],
    "expose_headers": ["x-total"],
}


def preflight(origin: str = SHOP, method: str = "PUT", *fields: str, target: str = "/") -> bytes:
    return request(
        "OPTIONS", target, f"Origin: {origin}", f"Access-Control-Request-Method: {method}", *fields, host="api.example"
    )


def allowance(answer: Message) -> dict[str, bytes]:
    prefix = "access-control-"
    return {name.removeprefix(prefix): answer.value(name) or b"" for name in answer.names() if name.startswith(prefix)}


async def test_a_preflight_is_answered_without_the_upstream(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"cors": {**RULES, "max_age": "1h"}}))
        asked = preflight(SHOP, "PUT", "Access-Control-Request-Headers: Content-Type, X-A")
        async with connected(gateway.address) as client:
            answer = await client.ask(asked)
            again = await client.ask(asked)
    assert answer.status == again.status == 204
    assert allowance(answer) == {
        "allow-origin": SHOP.encode(),
        "allow-methods": b"GET, PUT",
        "allow-headers": b"x-a, content-type",
        "max-age": b"3600",
    }
    assert answer.value("vary") == b"origin, access-control-request-method, access-control-request-headers"
    assert app.requests == []


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (preflight("https://evil.example"), b"origin"),
        (preflight("https://partner.example"), b"origin"),
        (preflight("https://evilpartner.example"), b"origin"),
        (preflight("https://evil.example#.partner.example"), b"origin"),
        (preflight("null"), b"origin"),
        (preflight("http://shop.example"), b"origin"),
        (preflight("https://shop.example:8443"), b"origin"),
        (preflight(SHOP, "DELETE"), b"method"),
        (preflight(SHOP, "put"), b"method"),
        (preflight(SHOP, "PUT", "Access-Control-Request-Headers: x-a, x-secret"), b"x-secret"),
    ],
)
async def test_a_preflight_for_what_is_not_allowed_is_refused_and_told_why(
    gateway: Gateway, asked: bytes, named: bytes
) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"cors": RULES}))
        answer = await ask(gateway.address, asked)
    assert (answer.status, answer.error) == (403, "cors-denied")
    assert named in answer.body
    assert allowance(answer) == {}
    assert app.requests == []


async def test_answers_say_who_may_read_them_and_caches_are_told(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"cors": {**RULES, "allow_credentials": True}}))
        for origin in (SHOP, "https://a.b.partner.example"):
            answer = await ask(gateway.address, get("/", f"Origin: {origin}"))
            assert allowance(answer) == {
                "allow-origin": origin.encode(),
                "allow-credentials": b"true",
                "expose-headers": b"x-total",
            }
            assert answer.value("vary") == b"origin"
        for fields in (["Origin: https://evil.example"], []):
            answer = await ask(gateway.address, get("/", *fields))
            assert (answer.status, answer.body) == (200, b"ok")
            assert allowance(answer) == {}
            assert answer.value("vary") == b"origin"
    assert len(app.requests) == 4


async def test_everybody_is_a_star_and_nobody_who_asks_without_an_origin_is_told(gateway: Gateway) -> None:
    async with upstream() as app:
        rules = {"allow_origins": ["*"], "allow_methods": ["*"], "allow_headers": ["*"]}
        await gateway.serve(single(app.port, policies={"cors": rules}))
        answer = await ask(gateway.address, get("/", "Origin: null"))
        assert allowance(answer) == {"allow-origin": b"*"}
        assert answer.value("vary") is None
        assert allowance(await ask(gateway.address, get())) == {}
        asked = preflight("https://anybody.example", "PATCH", "Access-Control-Request-Headers: x-any")
        answer = await ask(gateway.address, asked)
    assert answer.status == 204
    assert allowance(answer)["allow-methods"] == b"*"
    assert allowance(answer)["allow-headers"] == b"*"


async def test_what_the_upstream_says_about_it_is_replaced(gateway: Gateway) -> None:
    says = ["Access-Control-Allow-Origin: *", "access-control-allow-credentials: true", "Vary: Accept", "X-Total: 3"]
    async with upstream(response(200, *says, body=b"ok")) as app:
        await gateway.serve(single(app.port, policies={"cors": RULES}))
        answer = await ask(gateway.address, get("/", f"Origin: {SHOP}"))
        assert allowance(answer) == {"allow-origin": SHOP.encode(), "expose-headers": b"x-total"}
        assert answer.values("vary") == [b"Accept", b"origin"]
        assert answer.value("x-total") == b"3"
        assert allowance(await ask(gateway.address, get("/", "Origin: https://evil.example"))) == {}


async def test_the_gateways_own_errors_can_be_read_by_the_page_too(gateway: Gateway) -> None:
    origin = f"Origin: {SHOP}"
    document = single(1, policies={"cors": RULES, "body": {"max_bytes": 3}, "rate_limit": {"requests": 4, "per": "1h"}})
    await gateway.serve(document)
    answers = [
        await ask(gateway.address, get("/", origin)),
        await ask(gateway.address, request("POST", "/", origin, body=b"four")),
        await ask(gateway.address, request("POST", "/", origin, "Transfer-Encoding: chunked") + b"4\r\nfour\r\n"),
        await ask(gateway.address, get("/", origin, "Via: 1.1 " + gateway.name.decode())),
        await ask(gateway.address, get("/", origin)),
    ]
    errors = ["upstream-connect-failed", "body-too-large", "body-too-large", "loop-detected", "rate-limited"]
    assert [answer.error for answer in answers] == errors
    for answer in answers:
        assert allowance(answer)["allow-origin"] == SHOP.encode(), answer.error


async def test_a_preflight_belongs_to_the_route_of_the_request_it_asks_for(gateway: Gateway) -> None:
    def by(name: str, match: dict[str, Any], **policies: Any) -> dict[str, Any]:
        return {
            "name": name,
            "match": {"path_prefix": "/", **match},
            "respond": {"body": name},
            "policies": policies,
        }

    def cors(max_age: str) -> dict[str, Any]:
        return {**RULES, "allow_methods": ["GET", "PUT", "DELETE"], "allow_headers": ["x-beta"], "max_age": max_age}

    routes = [
        by("reading", {"methods": ["GET"]}, cors=cors("1s")),
        by("writing", {"methods": ["PUT", "OPTIONS"]}, cors=cors("2s")),
        by("beta", {"methods": ["DELETE"], "headers": {"x-beta": "1"}}, cors=cors("3s")),
        by("deleting", {"methods": ["DELETE"]}, cors=cors("4s")),
    ]
    await gateway.serve({"routes": routes})

    async def max_age(*asked: str) -> bytes | None:
        return (await ask(gateway.address, preflight(SHOP, *asked))).value("access-control-max-age")

    assert await max_age("GET") == b"1"
    assert await max_age("PUT") == b"2"
    assert await max_age("DELETE") == b"4"
    assert await max_age("DELETE", "Access-Control-Request-Headers: X-Beta") == b"3"
    answer = await ask(gateway.address, preflight(SHOP, "PATCH"))
    assert (answer.status, answer.value("allow")) == (405, b"DELETE, GET, OPTIONS, PUT")
    # An OPTIONS that asks for nothing is one like any other: it goes where OPTIONS is taken.
    answer = await ask(gateway.address, request("OPTIONS", "/"))
    assert answer.body == b"writing"


async def test_a_preflight_needs_no_credentials_and_takes_no_allowance(gateway: Gateway) -> None:
    limit = {"requests": 1, "per": "1h"}
    await gateway.serve(
        {
            "routes": [
                {
                    "name": "limited",
                    "match": {"path_prefix": "/"},
                    "respond": {"body": "hello"},
                    "policies": {"cors": RULES, "rate_limit": limit},
                }
            ]
        }
    )
    assert [(await ask(gateway.address, preflight())).status for _ in range(3)] == [204] * 3
    answer = await ask(gateway.address, get("/", f"Origin: {SHOP}"))
    assert (answer.status, allowance(answer)["allow-origin"]) == (200, SHOP.encode())


async def test_private_networks_are_opened_only_where_that_is_said(gateway: Gateway) -> None:
    asked = preflight(SHOP, "GET", "Access-Control-Request-Private-Network: true")
    async with upstream() as app:
        for allowed, told in ((True, b"true"), (False, None)):
            await gateway.serve(single(app.port, policies={"cors": {**RULES, "allow_private_network": allowed}}))
            answer = await ask(gateway.address, asked)
            assert answer.value("access-control-allow-private-network") == told
            assert answer.status == 204


async def test_a_page_of_another_origin_cannot_open_a_websocket_behind_the_rules(gateway: Gateway) -> None:
    switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with upstream(switch.encode()) as app:
        await gateway.serve(single(app.port, policies={"cors": RULES, "upgrade": ["websocket"]}))

        async def status(origin: str) -> int:
            asked = get("/", f"Origin: {origin}", "Connection: upgrade", "Upgrade: websocket", host="api.example")
            return (await ask(gateway.address, asked)).status

        assert await status("https://evil.example") == 403
        assert app.requests == []
        assert await status(SHOP) == 101
        assert await status("https://api.example") == 101


LABELS = st.text("abz09-_.#/@:%\x00 é", min_size=1, max_size=12)


@given(label=LABELS, tail=st.sampled_from(["", ":443", ".evil.example", "#", "/"]))
def test_a_wildcard_stands_for_labels_of_a_name_and_for_nothing_else(label: str, tail: str) -> None:
    rules = Cors({**DEFAULTS, "allow_origins": ["https://*.partner.example"]}, "one", idle_plane())
    allowed = rules.allows(f"https://{label}.partner.example{tail}".encode())
    assert allowed == (tail == "" and all(char in "abz09-_." for char in label))


DEFAULTS: dict[str, Any] = {
    "allow_methods": ["GET"],
    "allow_headers": [],
    "expose_headers": [],
    "allow_credentials": False,
    "allow_private_network": False,
    "max_age": 600.0,
}


async def test_routes_without_the_rules_pass_preflights_on(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, preflight())
    assert answer.status == 200
    assert [message.method for message in app.requests] == ["OPTIONS"]


async def test_why_a_preflight_went_elsewhere_is_told_by_what_it_asks_for() -> None:
    def by(name: str, **match: Any) -> dict[str, Any]:
        match = {"path_prefix": "/", **match}
        return {"name": name, "match": match, "respond": {}, "policies": {"cors": RULES}}

    document = {"routes": [by("reading", methods=["GET"], headers={"x-beta": "1"}), by("writing", methods=["PUT"])]}
    async with plane_here(document) as (plane, _):
        told = explain(plane, preflight(SHOP, "PUT", "Access-Control-Request-Headers: x-beta"), "127.0.0.1", "http")
    assert told["rank"] == 1
    assert told["others"] == [{"rank": 0, "reasons": ["method is not GET"]}]


@pytest.mark.parametrize("fields", [(), ("origin: https://a.example",)])
async def test_what_is_no_preflight_announces_no_headers(gateway: Gateway, fields: tuple[str, ...]) -> None:
    """Else OPTIONS would be a way round a route's condition."""
    async with upstream() as app:
        document = single(app.port, policies={"cors": {"allow_origins": ["https://a.example"]}})
        document["routes"][0]["match"]["headers"] = {"x-secret": "1"}
        await gateway.serve(document)
        asked = request("OPTIONS", "/", *fields, "access-control-request-headers: x-secret")
        assert (await ask(gateway.address, asked)).error == "no-route"
    assert not app.requests

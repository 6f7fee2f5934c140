"""Header rules: what is set, added and removed both ways, and what stands for something of the request."""

from typing import Any

import pytest
from toska_common.placeholders import PLACEHOLDERS
from toska_gateway.worker.edge.header_edits import PLACEHOLDER_VALUES
from toska_tests.gateways import Gateway, single
from toska_tests.raw_http import ask, get, response, upstream


def rules(**directions: Any) -> dict[str, Any]:
    return {"headers": directions}


async def test_fields_are_removed_then_set_then_added(gateway: Gateway) -> None:
    async with upstream(response(200, "X-A: 1", "X-B: 1", "X-C: 1", body=b"ok")) as app:
        edits = {"remove": ["x-b"], "set": {"x-a": "2"}, "add": {"x-c": "2"}}
        await gateway.serve(single(app.port, policies=rules(request=edits, response=edits)))
        answer = await ask(gateway.address, get("/", "X-A: 1", "X-A: 3", "X-B: 1", "X-C: 1"))
    for message in (app.requests[0], answer):
        assert message.values("x-a") == [b"2"]
        assert message.values("x-b") == []
        assert message.values("x-c") == [b"1", b"2"]


async def test_placeholders_stand_for_what_the_request_has(gateway: Gateway) -> None:
    told = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    async with upstream() as app:
        document = single(
            app.port, policies=rules(request={"set": {"x-told": told}}, response={"add": {"x-told": told}})
        )
        await gateway.serve({**document, "server": {"trusted_proxies": ["127.0.0.1/32"]}})
        fields = ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Request-Id: r-1", "X-Told: mine"]
        answer = await ask(gateway.address, get("/a%20b?c", *fields, host="shop.example"))
    expected = b"192.0.2.7 shop.example GET /a%20b r-1 all https"
    assert app.requests[0].values("x-told") == [expected]
    assert answer.values("x-told") == [expected]


@pytest.mark.parametrize("value", ['{"group":"default","max_age":1}', "{}", "{Host}", "{ host }", "{a-b}", "}{"])
async def test_other_braces_are_letters(gateway: Gateway, value: str) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies=rules(response={"set": {"x-a": value}})))
        assert (await ask(gateway.address, get())).value("x-a") == value.encode()


def test_the_contract_and_the_worker_know_the_same_placeholders() -> None:
    assert set(PLACEHOLDERS) == set(PLACEHOLDER_VALUES)


@pytest.mark.parametrize("rules", [{"remove": ["x-admin"]}, {"set": {"X-Admin": "no"}}])
async def test_no_spelling_of_a_field_gets_past_the_rule_about_it(gateway: Gateway, rules: dict[str, Any]) -> None:
    """WSGI and CGI fold _ into -."""
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"headers": {"request": rules}}))
        await ask(gateway.address, get("/", "X-Admin: root", "X_Admin: root", "x_ADMIN: root", "x-other_one: kept"))
    assert b"root" not in app.received
    assert app.requests[0].value("x-other_one") == b"kept"

"""Routes that a service asks for in its metadata: what it may have, and what is refused."""

import json
from typing import Any

import pytest
from toska_common.contracts.offers import META_ROUTES, decode_offer, encode_offer
from toska_common.routing.document import InvalidDocument
from toska_common.routing.offers import read_offer

REPORTS = {"name": "reports", "match": {"path_prefix": "/orders/reports"}, "policies": {"timeout": "60s"}}


def refusal_of(*routes: Any, service: str = "orders") -> str:
    with pytest.raises(InvalidDocument) as refusal:
        read_offer(service, json.dumps(routes))
    return refusal.value.detail


def test_a_route_below_the_service_leads_to_it_and_is_asked_without_the_prefix() -> None:
    [route] = read_offer("orders", json.dumps([REPORTS]))
    assert route.name == "auto:orders:reports"
    assert [part.cluster for part in route.to] == ["orders"]
    assert route.policies.rewrite is not None
    assert str(route.policies.timeout) == "0:01:00"


def test_metrics_and_health_stay_closed() -> None:
    [route] = read_offer("orders", json.dumps([{"name": "all", "match": {"path_prefix": "/orders"}}]))
    assert route.match.except_prefixes == ("/orders/metrics", "/orders/health")
    assert route.strip_prefix
    for match in (
        {"path": "/orders/metrics"},
        {"path_prefix": "/orders/health"},
        {"path": "/orders/health/live"},
        {"path_template": "/orders/{any}"},
        {"path_template": "/orders/{rest=**}"},
    ):
        assert "match" in refusal_of({"name": "x", "match": match})


@pytest.mark.parametrize(
    "match",
    [
        {"path_prefix": "/"},
        {"path_prefix": "/ordersx"},
        {"path": "/payments/x"},
        {"path_regex": "/orders/.*"},
        {"path_prefix": "/orders/x", "path": "/orders/y"},
        {"path": "/orders/x", "except_prefixes": ["/orders/x/y"]},
    ],
)
def test_what_is_not_below_the_service_is_refused(match: dict[str, Any]) -> None:
    assert "match" in refusal_of({"name": "x", "match": match})


@pytest.mark.parametrize(
    "policies",
    [
        {"filters": ["os:system"]},
        {"mirror": {"cluster": "payments"}},
        {"fallback": {"cluster": "payments"}},
        {"auth": {"jwt": {"issuer": "a", "audience": "b", "jwks_file": "/etc/passwd", "algorithms": ["RS256"]}}},
        {"ip": {"allow": ["10.0.0.0/8"]}},
        {"body": {"max_bytes": 0}},
        {"access_log": {"sample": 0}},
        {"rewrite": {"host": "elsewhere"}},
        {"watch": "x"},
        {"rate_limit": {"requests": 1, "key": "claim:sub"}},
    ],
)
def test_policies_that_touch_more_than_the_service_are_refused(policies: dict[str, Any]) -> None:
    refusal_of({**REPORTS, "policies": policies})


def test_one_wrong_route_refuses_all_and_everything_wrong_is_named() -> None:
    detail = refusal_of(REPORTS, {**REPORTS, "match": {"path": "/x"}}, {"name": "c", "match": REPORTS["match"]})
    for words in ("stands twice", "is not below /orders", 'routes[2].match: "reports" matches the same requests'):
        assert words in detail
    refusal_of({**REPORTS, "to": "payments"})
    refusal_of({**REPORTS, "name": "../x"})
    refusal_of(REPORTS, service="toska-router")
    refusal_of(*({"name": f"r{n}", "match": {"path": f"/orders/{n}"}} for n in range(33)))


@pytest.mark.parametrize("text", ["", "x", "{}", "[1]", '[], "x": 1', "[]}", "null", "[" * 5000])
def test_a_text_that_is_no_list_of_routes_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument):
        read_offer("orders", text)


def test_a_time_that_no_clock_has_is_refused_like_any_other_mistake() -> None:
    # It was raised as an error of arithmetic once, and ended the router that read it.
    for time in ("99999999999999999d", "9" * 400 + "d"):
        huge = {"name": "x", "match": {"path": "/orders/x"}, "policies": {"timeout": time}}
        assert "longer than 36500 days" in refusal_of(huge)


def test_a_long_text_travels_in_pieces() -> None:
    routes = [{**REPORTS, "name": f"r{n}", "match": {"path": f"/orders/ü{n}"}} for n in range(12)]
    meta = encode_offer(routes)
    assert len(meta) > 1
    assert all(len(piece) <= 512 and piece.isascii() for piece in meta.values())
    assert len(read_offer("orders", decode_offer({**meta, "other": "x"}))) == 12
    with pytest.raises(ValueError, match="has room for 4096"):
        encode_offer(routes * 5)
    assert encode_offer([]) == {}
    assert decode_offer({f"{META_ROUTES}-2": "x"}) == ""

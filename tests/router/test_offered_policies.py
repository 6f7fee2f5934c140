"""Routes that services ask for may name the policies that operators keep for services, and no others."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.contracts.offers import encode_offer
from toska_common.contracts.routing import NamedPolicy
from toska_router.offers import Offers
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


def asking(*names: str, **policies: Any) -> dict[str, Any]:
    match = {"path_prefix": "/orders/reports"}
    return {"name": "reports", "match": match, "policies_from": names, "policies": policies}


def policy(**fields: Any) -> NamedPolicy:
    return NamedPolicy.model_validate(fields)


PUBLIC = policy(for_services=True, timeout="5s", security_headers=True)


async def test_a_service_s_route_has_what_a_policy_for_services_says_and_follows_its_changes(
    router: RunningRouter, consul: ConsulClient, instance: Callable[..., ServiceRegistration]
) -> None:
    await router.put("policies/public", {"for_services": True, "timeout": "5s", "security_headers": True})
    await consul.register_service(instance("orders", meta=encode_offer([asking("public", timeout="60s")])))

    async def is_there() -> bool:
        return len(await router.read("routes")) == 1

    await wait_until(is_there, what="the route is there")
    [entry] = await router.read("routes")
    assert entry["effective_policies"]["timeout"] == "60s"
    assert "security_headers" in entry["effective_policies"]
    assert entry["route"]["policies_from"] == ["public"]
    [kept] = await router.read("policies")
    assert kept["used_by"] == ["auto:orders:reports"]
    assert kept["policy"]["for_services"] is True
    assert "for_services" not in json.dumps(entry)

    # No service stands in an operator's way: its routes go, and the dry run says so.
    seen = (await router.delete("policies/public?dry_run=true")).json()
    assert [(one["name"], one["change"]) for one in seen["compiled"]["routes"]] == [("auto:orders:reports", "removed")]
    assert (await router.read("status"))["refused_offers"] == []
    assert (await router.put("policies/public", {"timeout": "5s"})).status_code == 200
    assert await router.read("routes") == []
    [refused] = (await router.read("status"))["refused_offers"]
    assert refused["service"] == "orders"
    assert refused["reasons"] == ['routes[0].policies_from[0]: no policy "public" has for_services']
    await router.put("policies/public", {"for_services": True})
    assert len(await router.read("routes")) == 1
    assert (await router.read("status"))["refused_offers"] == []


async def test_only_a_name_can_be_for_services(router: RunningRouter) -> None:
    body = {"match": {"path": "/a"}, "respond": {}, "policies": {"for_services": True}}
    refused = await router.put("routes/a", body)
    assert refused.json()["problems"][0]["field"] == "policies.for_services"


def test_what_is_not_kept_for_services_or_does_not_go_together_refuses_the_whole_offer() -> None:
    offers = Offers()
    text = json.dumps([asking("public"), {"name": "all", "match": {"path_prefix": "/orders"}}])
    offers.take({"orders": [text]})
    for named, reason in (
        ({}, 'no policy "public" has for_services'),
        ({"public": policy(timeout="5s")}, 'no policy "public" has for_services'),
        ({"publik": PUBLIC}, '(did you mean "publik"?)'),
        ({"public": policy(for_services=True, rate_limit={"requests": 1, "key": "claim:sub"})}, "with public: "),
    ):
        resolved = offers.resolve(named)
        assert not resolved.routes
        assert reason in resolved.refused[0].reasons[0]
    assert [route.name for route in offers.resolve({"public": PUBLIC}).routes["orders"]] == [
        "auto:orders:reports",
        "auto:orders:all",
    ]


def test_an_instance_that_names_too_much_takes_nothing_from_those_that_do_not() -> None:
    offers = Offers()
    offers.take({"orders": [json.dumps([asking("strict")]), json.dumps([asking()])]})
    resolved = offers.resolve({"public": PUBLIC})
    assert [route.policies_from for route in resolved.routes["orders"]] == [()]
    assert len(resolved.refused) == 1


def test_what_is_the_same_stays_the_same_route() -> None:
    offers = Offers()
    offers.take({"orders": [json.dumps([asking("public")])]})
    [first] = offers.resolve({"public": PUBLIC}).routes["orders"]
    [again] = offers.resolve({"public": PUBLIC, "other": policy(timeout="1s")}).routes["orders"]
    assert again is first
    [changed] = offers.resolve({"public": policy(for_services=True, timeout="9s")}).routes["orders"]
    assert changed.policies.timeout != first.policies.timeout

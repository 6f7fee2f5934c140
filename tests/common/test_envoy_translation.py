"""The routing contract in Envoy's words: what is translated is of the API's form, and what is not is named."""

import inspect
import json
from typing import Any

import pytest
from pydantic import BaseModel
from toska_common.contracts import routing, tls
from toska_common.contracts.routing import Cluster, Match, Policies, Route, RouteTable, WeightedCluster
from toska_common.envoy import Judged, ListenerOptions, Options, RouteEncoder, RouteParts, find_refusals, translate
from toska_common.envoy.encoding import encode
from toska_common.envoy.messages import as_messages
from toska_common.envoy.refusals import FIELDS
from toska_common.envoy.resources import ROUTES
from toska_common.envoy_api import message_class
from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import CASES
from toska_tests.gateways import cluster, route, snapshot_of
from toska_tests.routing_documents import documented

_OPTIONS = Options(
    listeners=(ListenerOptions("plain", "127.0.0.1", 8080), ListenerOptions("socket", path="/run/x.sock")),
    workers=2,
    pseudonym="toska-test",
)


def _translated(document: dict[str, Any]) -> Any:
    snapshot = snapshot_of(document)
    return translate(snapshot.table, snapshot.endpoints, _OPTIONS)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_is_translated_is_of_the_form_of_the_api(case: Case) -> None:
    document = documented(case)
    if find_refusals(snapshot_of(document).table):
        return
    messages = as_messages(_translated(document))
    assert {url.rpartition(".")[2] for url, found in messages.items() if found} >= {"Listener", "RouteConfiguration"}


def test_every_field_of_the_contract_is_translated_or_refused() -> None:
    models = {
        one
        for module in (routing, tls)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, BaseModel) and one.__module__.startswith("toska_common.contracts")
    }
    reached = {kind for kind in models if kind in FIELDS}
    for kind in reached:
        missing = set(kind.model_fields) ^ set(FIELDS[kind])
        assert not missing, f"say in toska_common.envoy.refusals what becomes of {kind.__name__}: {missing}"


def test_a_field_that_the_translation_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: rule for name, rule in FIELDS[Policies].items() if name != "compress"}
    monkeypatch.setitem(FIELDS, Policies, known)  # pyright: ignore[reportArgumentType] - it is a dict
    table = snapshot_of({"clusters": {"app": cluster(9001)}, "routes": [route("all", policies={"compress": {}})]}).table
    (finding,) = find_refusals(table)
    assert finding.location == ("routes", 0, "policies", "compress")
    assert "does not know" in finding.reason


def test_a_refusal_names_the_route_its_place_and_the_reason() -> None:
    table = snapshot_of(
        {"clusters": {"app": cluster(9001)}, "routes": [route("shop", policies={"filters": ["a.b:C"]})]}
    ).table
    (finding,) = find_refusals(table)
    assert finding.location == ("routes", 0, "policies", "filters")
    assert finding.reason == 'route "shop": Envoy runs no Python'


def test_the_path_that_was_asked_for_is_refused_where_envoy_has_forgotten_it() -> None:
    said = {"headers": {"response": {"add": {"x-path": "of {path}"}}}}
    document = {
        "clusters": {"app": cluster(9001)},
        "routes": [
            route("kept", "/a", policies=said),
            route("stripped", "/b", strip_prefix=True, policies=said),
            route("rewritten", "/c", policies={"rewrite": {"prefix": "/d"}, **said}),
        ],
    }
    findings = find_refusals(snapshot_of(document).table)
    assert [finding.reason.partition(":")[0] for finding in findings] == ['route "stripped"', 'route "rewritten"']


def test_numbers_beyond_envoys_own_are_its_largest() -> None:
    many = 10**12
    limits = {"max_connections": many, "max_pending": many, "max_requests": many}
    outlier = {"consecutive_failures": many, "consecutive_gateway_errors": many, "consecutive_5xx": many}
    document = {"clusters": {"app": cluster(9001, limits=limits, outlier=outlier)}, "routes": [route("all")]}
    assert as_messages(_translated(document))
    thresholds = _translated(document).clusters["app"]["circuit_breakers"]["thresholds"][0]
    assert thresholds["max_connections"] == 2**32 - 1


def test_what_envoy_has_once_for_a_cluster_may_not_differ_by_route() -> None:
    table = snapshot_of(
        {
            "clusters": {"app": cluster(9001)},
            "routes": [route("one", "/a"), route("two", "/b", policies={"connect_timeout": "1s"})],
        }
    ).table
    (finding,) = find_refusals(table)
    assert finding.location[-1] == "connect_timeout"
    assert '"two"' in finding.reason or '"one"' in finding.reason


def test_other_filters_come_with_routes_of_another_name() -> None:
    plain = _translated({"clusters": {"app": cluster(9001)}, "routes": [route("all")]})
    other = _translated({"clusters": {"app": cluster(9001)}, "routes": [route("other", "/x")]})
    limited = _translated(
        {"clusters": {"app": cluster(9001)}, "routes": [route("all", policies={"ip": {"allow": ["10.0.0.0/8"]}})]}
    )
    assert list(plain.routes) == list(other.routes)
    assert plain.listeners == other.listeners
    assert list(plain.routes) != list(limited.routes)


def test_a_route_without_a_host_takes_what_those_with_the_host_left() -> None:
    made = _translated(
        {
            "clusters": {"app": cluster(9001)},
            "routes": [
                {"name": "shop", "match": {"host": "shop.test", "path_prefix": "/a"}, "to": "app"},
                route("all"),
            ],
        }
    )
    (configuration,) = made.routes.values()
    by_host = {one["name"]: {part["name"] for part in one["routes"]} for one in configuration["virtual_hosts"]}
    assert by_host["shop.test"] >= {"shop", "all"}
    assert "shop" not in by_host["*"]


def test_endpoints_beyond_the_zone_help_out() -> None:
    table = RouteTable(
        clusters={
            "app": Cluster(
                zone="a",
                endpoints=(
                    routing.Endpoint(address="127.0.0.1", port=1, zone="a"),
                    routing.Endpoint(address="127.0.0.1", port=2, zone="b"),
                ),
            )
        },
        routes=(Route(name="all", match=Match(path_prefix="/"), to=(WeightedCluster(cluster="app"),)),),
    )
    endpoints = {"app": routing.ClusterEndpoints(version="1", endpoints=table.clusters["app"].endpoints)}
    made = translate(table, endpoints, _OPTIONS).endpoints["app"]
    assert [(one["locality"]["zone"], one["priority"]) for one in made["endpoints"]] == [("a", 0), ("b", 1)]


def test_a_translation_is_plain_json() -> None:
    resources = _translated({"clusters": {"app": cluster(9001)}, "routes": [route("all", strip_prefix=True)]})
    assert json.loads(json.dumps(resources.by_type())) == resources.by_type()


def test_a_change_of_one_route_is_one_route_and_the_rest_are_the_same_objects() -> None:
    parts = RouteParts()
    first = {"clusters": {"app": cluster(9001)}, "routes": [route("one", "/one"), route("two", "/two")]}
    other = {**first, "routes": [route("one", "/one"), route("two", "/two", policies={"timeout": "9s"})]}
    told: list[dict[str, Any]] = []
    for document in (first, other):
        snapshot = snapshot_of(document)
        (configuration,) = translate(snapshot.table, snapshot.endpoints, _OPTIONS, parts).routes.values()
        told.append({one["name"]: one for one in configuration["virtual_hosts"][0]["routes"]})
    assert told[0]["one"] is told[1]["one"]
    assert told[0]["two"] is not told[1]["two"]
    assert (told[0]["two"]["route"]["timeout"], told[1]["two"]["route"]["timeout"]) == ("0s", "9s")


def test_what_a_route_is_told_follows_its_clusters() -> None:
    parts = RouteParts()
    for balancer, hashed in (("least_request", False), ("ip_hash", True)):
        snapshot = snapshot_of(
            {"clusters": {"app": {**cluster(9001), "balancer": balancer}}, "routes": [route("one", "/one")]}
        )
        (configuration,) = translate(snapshot.table, snapshot.endpoints, _OPTIONS, parts).routes.values()
        actions = [one["route"] for one in configuration["virtual_hosts"][0]["routes"] if "route" in one]
        assert all(("hash_policy" in action) is hashed for action in actions)


def test_a_configuration_encoded_in_parts_is_the_one_that_is_encoded_whole() -> None:
    parts, encoder = RouteParts(), RouteEncoder()
    for timeout in ("5s", "9s"):
        document = {
            "clusters": {"app": cluster(9001)},
            "routes": [route("one", "/one"), route("two", "/two", policies={"timeout": timeout})],
        }
        snapshot = snapshot_of(document)
        (told,) = translate(snapshot.table, snapshot.endpoints, _OPTIONS, parts).routes.values()
        kind: Any = message_class("envoy.config.route.v3.RouteConfiguration")
        assert kind.FromString(encoder.encode(told)) == kind.FromString(encode(ROUTES, told))


def test_routes_against_which_there_was_nothing_are_not_judged_again_but_with_other_clusters() -> None:
    judged = Judged()
    table = snapshot_of({"clusters": {"app": cluster(9001)}, "routes": [route("one"), route("two", "/two")]}).table
    assert find_refusals(table, judged) == find_refusals(table, judged) == []
    filters = table.routes[1].policies.model_copy(update={"filters": ("a.b:C",)})
    worse = table.model_copy(
        update={"routes": (table.routes[0], table.routes[1].model_copy(update={"policies": filters}))}
    )
    for _ in range(2):
        (finding,) = find_refusals(worse, judged)
        assert finding.location == ("routes", 1, "policies", "filters")

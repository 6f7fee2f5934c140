"""The routing contract in Envoy's words: what is translated is of the API's form, and what is not is named."""

import inspect
import json
from typing import Any

import pytest
from pydantic import BaseModel
from toska_common.contracts import routing, tls
from toska_common.contracts.routing import Cluster, Match, Policies, Route, RouteTable, WeightedCluster
from toska_common.envoy import ListenerOptions, Options, find_refusals, translate
from toska_common.envoy.messages import as_messages
from toska_common.envoy.refusals import FIELDS
from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import CASES
from toska_tests.gateways import cluster, route, snapshot_of

_OPTIONS = Options(
    listeners=(ListenerOptions("plain", "127.0.0.1", 8080), ListenerOptions("socket", path="/run/x.sock")),
    workers=2,
    pseudonym="toska-test",
)


def _translated(document: dict[str, Any]) -> Any:
    snapshot = snapshot_of(document)
    return translate(snapshot.table, snapshot.endpoints, _OPTIONS)


def _documented(case: Case) -> dict[str, Any]:
    names: list[str] = []
    for one in case.routes:
        to: Any = one.get("to") or ()
        names += [to] if isinstance(to, str) else [part["cluster"] for part in to]
    here = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
    clusters = {name: cluster(9001) for name in names} | {name: {**one, **here} for name, one in case.clusters.items()}
    return {"server": dict(case.server), "clusters": clusters, "routes": list(case.routes)}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_is_translated_is_of_the_form_of_the_api(case: Case) -> None:
    document = _documented(case)
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

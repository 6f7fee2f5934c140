"""Precedence: the first route in the order, all of whose conditions hold, takes a request."""

import random

from toska_common.contracts.routing import Match, Route, RoutingDocument, ValueMatch, WeightedCluster
from toska_common.routing.order import order_routes
from toska_common.routing.snapshot import automatic_route, build_table

TO = (WeightedCluster(cluster="orders"),)


def ordered(**matches: Match) -> list[str]:
    routes = [Route(name=name, match=match, to=TO) for name, match in matches.items()]
    return [route.name for route in order_routes(routes)]


def test_hosts_go_from_exact_over_longer_wildcards_to_none() -> None:
    assert ordered(
        none=Match(path="/a"),
        wide=Match(path="/a", host="*.example"),
        narrow=Match(path="/a", host="*.shop.example"),
        exact=Match(path_prefix="/", host="a.shop.example"),
    ) == ["exact", "narrow", "wide", "none"]


def test_paths_go_from_exact_over_longer_prefixes_to_shorter_ones() -> None:
    assert ordered(
        root=Match(path_prefix="/"),
        short=Match(path_prefix="/a/"),
        long=Match(path_prefix="/a/b"),
        exact=Match(path="/a"),
    ) == ["exact", "long", "short", "root"]


def test_expressions_go_between_exact_paths_and_prefixes_in_the_order_of_writing() -> None:
    assert ordered(
        root=Match(path_prefix="/"),
        long=Match(path_prefix="/a/b/c"),
        second=Match(path_regex=".*"),
        first=Match(path_regex="/a/[a-z]+/c"),
        exact=Match(path="/a/b/c"),
    ) == ["exact", "second", "first", "long", "root"]


def test_more_conditions_go_before_fewer() -> None:
    assert ordered(
        bare=Match(path="/a"),
        one=Match(path="/a", methods=("GET", "POST")),
        two=Match(path="/a", headers={"x": ValueMatch(exact="1")}, methods=("GET",)),
        three=Match(
            path="/a",
            headers={"x": ValueMatch(exact="1"), "y": ValueMatch(exact="1")},
            query={"v": ValueMatch(exact="2")},
        ),
    ) == ["three", "two", "one", "bare"]


def test_otherwise_the_order_of_writing_decides() -> None:
    assert ordered(
        b=Match(path="/a", methods=("GET",)),
        a=Match(path="/a", methods=("POST",)),
        c=Match(path="/a", query={"v": ValueMatch(exact="1")}),
    ) == ["b", "a", "c"]


def test_operators_routes_go_before_automatic_ones_however_wide_they_are() -> None:
    wide = Route(name="wide", match=Match(path_prefix="/"), to=TO)
    assert [route.name for route in order_routes([automatic_route("orders"), wide])] == ["wide", "auto:orders"]


def test_the_order_does_not_depend_on_who_was_first_where_it_is_decided_by_the_match() -> None:
    matches = [Match(path="/a"), Match(path_prefix="/a"), Match(path_prefix="/"), Match(path="/a", host="a.example")]
    routes = [Route(name=str(number), match=match, to=TO) for number, match in enumerate(matches)]
    shuffled = random.Random(7).sample(routes, len(routes))
    assert order_routes(routes) == order_routes(shuffled)


def test_an_automatic_route_leaves_out_metrics_and_health() -> None:
    table = build_table(RoutingDocument(), ["payments", "docs", "toska-gateway"])
    [route] = table.routes
    assert route.name == "auto:payments"
    assert route.match == Match(path_prefix="/payments", except_prefixes=("/payments/metrics", "/payments/health"))
    assert route.strip_prefix
    assert list(table.clusters) == ["payments"]

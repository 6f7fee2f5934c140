"""Under which path the gateway takes an operation of a service, by the routes of a snapshot."""

from toska_common.contracts.routing import (
    ApiVersion,
    Cluster,
    Endpoint,
    Match,
    Policies,
    Redirect,
    Rewrite,
    Route,
    RouteTable,
    ValueMatch,
    Versions,
    WeightedCluster,
)
from toska_common.routing.snapshot import automatic_route
from toska_gateway.openapi.reach import Reach


def table(*routes: Route, **clusters: Cluster) -> RouteTable:
    services = {name: Cluster(service=name) for route in routes for name in (part.cluster for part in route.to)}
    return RouteTable(routes=routes, clusters=services | clusters)


def route(name: str, match: Match, to: str, *, strip_prefix: bool = False) -> Route:
    return Route(name=name, match=match, to=(WeightedCluster(cluster=to),), strip_prefix=strip_prefix)


def test_an_automatic_route_puts_the_service_in_front() -> None:
    reach = Reach(table(automatic_route("orders")))
    assert reach.find_path("orders", "get", "/items/{id}") == "/orders/items/{id}"
    assert reach.find_path("orders", "get", "/") == "/orders/"


def test_metrics_and_health_are_not_reached_through_an_automatic_route() -> None:
    reach = Reach(table(automatic_route("orders")))
    assert reach.find_path("orders", "get", "/metrics") is None
    assert reach.find_path("orders", "get", "/health/live") is None
    assert reach.find_path("orders", "get", "/healthy") == "/orders/healthy"


def test_a_service_without_a_route_is_not_reached() -> None:
    assert Reach(table(automatic_route("orders"))).find_path("payments", "get", "/") is None


def test_a_route_that_keeps_its_prefix_reaches_what_lies_below_it() -> None:
    reach = Reach(table(route("shop", Match(path_prefix="/v1"), "shop")))
    assert reach.find_path("shop", "get", "/v1/items") == "/v1/items"
    assert reach.find_path("shop", "get", "/v2/items") is None


def test_an_exact_path_reaches_only_itself() -> None:
    reach = Reach(table(route("one", Match(path="/one"), "shop")))
    assert reach.find_path("shop", "get", "/one") == "/one"
    assert reach.find_path("shop", "get", "/one/two") is None


def test_methods_that_a_route_does_not_take_are_not_reached() -> None:
    reach = Reach(table(route("reads", Match(path_prefix="/shop", methods=("GET",)), "shop", strip_prefix=True)))
    assert reach.find_path("shop", "get", "/items") == "/shop/items"
    assert reach.find_path("shop", "post", "/items") is None


def test_an_operation_that_an_earlier_route_takes_away_is_not_reached() -> None:
    away = route("away", Match(path_prefix="/orders/items"), "other")
    reach = Reach(table(away, automatic_route("orders")))
    assert reach.find_path("orders", "get", "/items/1") is None
    assert reach.find_path("orders", "get", "/item") == "/orders/item"


def test_an_earlier_redirect_takes_the_operation_away_too() -> None:
    moved = Route(name="moved", match=Match(path="/orders/old"), redirect=Redirect(to="/new"))
    assert Reach(table(moved, automatic_route("orders"))).find_path("orders", "get", "/old") is None


def test_routes_that_ask_for_more_than_a_path_and_a_method_neither_reach_nor_take_away() -> None:
    routes = [
        route("host", Match(host="shop.example", path_prefix="/orders"), "orders"),
        route("header", Match(path_prefix="/orders", headers={"x-beta": ValueMatch(exact="1")}), "orders"),
        route("cookie", Match(path_prefix="/orders", cookies={"sid": ValueMatch(present=True)}), "orders"),
        route("client", Match(path_prefix="/orders", client_ip=("10.0.0.0/8",)), "orders"),
        route("template", Match(path_template="/orders/{id}"), "orders"),
        route("query", Match(path_prefix="/orders", query={"v": ValueMatch(exact="2")}), "orders"),
    ]
    assert Reach(table(*routes)).find_path("orders", "get", "/orders/1") is None
    assert Reach(table(*routes, automatic_route("orders"))).find_path("orders", "get", "/1") == "/orders/1"


def test_a_split_is_documented_by_its_larger_part() -> None:
    split = Route(
        name="split",
        match=Match(path_prefix="/orders"),
        to=(WeightedCluster(cluster="canary", weight=10), WeightedCluster(cluster="orders", weight=90)),
        strip_prefix=True,
    )
    reach = Reach(table(split))
    assert reach.find_path("orders", "get", "/x") == "/orders/x"
    assert reach.find_path("canary", "get", "/x") is None


def test_a_cluster_stands_for_the_service_it_follows_under_whatever_name() -> None:
    reach = Reach(table(route("shop", Match(path_prefix="/shop"), "front"), front=Cluster(service="orders")))
    assert reach.services() == {"orders"}


def test_a_fixed_cluster_has_no_document_unless_it_is_the_mesh_s_own() -> None:
    fixed = Cluster(endpoints=(Endpoint(address="127.0.0.1", port=1),))
    routes = [
        route("legacy", Match(path_prefix="/legacy"), "orders"),
        route("mesh", Match(path_prefix="/api/v1/routes"), "toska-router"),
    ]
    reach = Reach(table(*routes, **{"orders": fixed, "toska-router": fixed}))
    assert reach.services() == {"toska-router"}
    assert reach.find_path("toska-router", "put", "/api/v1/routes/{name}") == "/api/v1/routes/{name}"
    assert reach.find_path("toska-router", "get", "/metrics") is None


def test_a_user_s_cluster_that_follows_a_mesh_service_is_not_taken_for_the_mesh_s_own() -> None:
    reach = Reach(table(route("sly", Match(path_prefix="/sly"), "sly"), sly=Cluster(service="toska-router")))
    assert reach.services() == frozenset()


def rewriting(name: str, match: Match, policies: Policies) -> Route:
    return Route(name=name, match=match, to=(WeightedCluster(cluster="shop"),), policies=policies)


def test_a_rewritten_prefix_is_turned_round_and_what_it_never_makes_is_not_reached() -> None:
    v2 = Policies(rewrite=Rewrite(prefix="/v2"))
    reach = Reach(table(rewriting("shop", Match(path_prefix="/shop/"), v2)))
    assert reach.find_path("shop", "get", "/v2/items/{id}") == "/shop/items/{id}"
    assert reach.find_path("shop", "get", "/v2") == "/shop"
    assert reach.find_path("shop", "get", "/items") is None
    root = Reach(table(rewriting("shop", Match(path_prefix="/shop"), Policies(rewrite=Rewrite(prefix="/")))))
    assert root.find_path("shop", "get", "/items") == "/shop/items"
    host = Reach(table(rewriting("shop", Match(path_prefix="/"), Policies(rewrite=Rewrite(host="shop.internal")))))
    assert host.find_path("shop", "get", "/items") == "/items"


def test_what_an_expression_makes_of_paths_cannot_be_turned_round() -> None:
    rewrite = Policies(rewrite=Rewrite(regex="/a/(.*)", replacement="/\\1"))
    assert Reach(table(rewriting("shop", Match(path_prefix="/"), rewrite))).find_path("shop", "get", "/a/b") is None


def test_routes_by_expression_neither_reach_nor_take_away() -> None:
    every = rewriting("every", Match(path_regex=".*"), Policies())
    reach = Reach(table(every, automatic_route("orders")))
    assert reach.find_path("orders", "get", "/items") == "/orders/items"
    assert reach.find_path("shop", "get", "/items") is None


def test_a_version_that_is_taken_off_the_path_is_reached_by_the_default() -> None:
    def versions(default: str | None) -> Policies:
        return Policies(versions=Versions(by=("path",), known={"1": ApiVersion()}, default=default, strip_path=True))

    without = Reach(table(rewriting("shop", Match(path_prefix="/shop"), versions(None))))
    assert without.find_path("shop", "get", "/shop/items") is None
    reach = Reach(table(rewriting("shop", Match(path_prefix="/shop"), versions("1"))))
    assert reach.find_path("shop", "get", "/shop/items") == "/shop/items"

"""What can only be seen with the whole table in view."""

from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    Match,
    Redirect,
    Route,
    RoutingDocument,
    ValueMatch,
    WeightedCluster,
)
from toska_common.routing.checks import check_document
from toska_common.routing.problems import format_location

ORDERS = {"orders": Cluster(service="orders")}
NOTHING = RoutingDocument()


def route(name: str, match: Match, *clusters: str) -> Route:
    return Route(
        name=name, match=match, to=tuple(WeightedCluster(cluster=cluster) for cluster in clusters or ("orders",))
    )


def places(
    routes: list[Route | None], clusters: dict[str, Cluster] = ORDERS, beside: RoutingDocument = NOTHING
) -> list[str]:
    return [format_location(finding.location) for finding in check_document(routes, clusters, beside=beside)]


def test_routes_that_differ_in_any_condition_do_not_conflict() -> None:
    matches = [
        Match(path="/a"),
        Match(path_prefix="/a"),
        Match(path="/a", host="a.example"),
        Match(path="/a", host="*.example"),
        Match(path="/a", methods=("GET",)),
        Match(path="/a", headers={"x-beta": ValueMatch(exact="1")}),
        Match(path="/a", headers={"x-beta": ValueMatch(exact="2")}),
        Match(path="/a", query={"v": ValueMatch(exact="2")}),
        Match(path_prefix="/a", except_prefixes=("/a/b",)),
    ]
    assert places([route(f"r{number}", match) for number, match in enumerate(matches)]) == []


def test_a_conflict_names_both_routes() -> None:
    first = route(
        "first",
        Match(
            path_prefix="/a", methods=("GET", "POST"), headers={"a": ValueMatch(exact="1"), "b": ValueMatch(exact="2")}
        ),
    )
    second = route(
        "second",
        Match(
            path_prefix="/a/", methods=("POST", "GET"), headers={"b": ValueMatch(exact="2"), "a": ValueMatch(exact="1")}
        ),
    )
    [finding] = check_document([first, second], ORDERS)
    assert format_location(finding.location) == "routes[1].match"
    assert '"first"' in finding.reason
    assert '"second"' in finding.reason


def test_a_conflict_with_another_source_names_both_routes() -> None:
    beside = RoutingDocument(routes=(Route(name="theirs", match=Match(path="/a"), redirect=Redirect(to="/b")),))
    [finding] = check_document([route("ours", Match(path="/a"))], ORDERS, beside=beside)
    assert '"theirs"' in finding.reason
    assert '"ours"' in finding.reason


def test_a_name_is_given_once_over_all_sources() -> None:
    beside = RoutingDocument(
        clusters={"legacy": Cluster(service="legacy")},
        routes=(Route(name="a", match=Match(path="/x"), redirect=Redirect(to="/y")),),
    )
    legacy = {"legacy": Cluster(service="other")}
    found = places(
        [route("a", Match(path="/1"), "legacy"), route("b", Match(path="/2"), "legacy")], legacy, beside=beside
    )
    assert found == ["routes[0].name", "clusters.legacy"]
    assert places([route("b", Match(path="/1")), route("b", Match(path="/2"))]) == ["routes[1].name"]


def test_a_source_may_use_the_clusters_of_another_and_cannot_take_one_away_that_is_used() -> None:
    beside = RoutingDocument(
        clusters={"legacy": Cluster(service="legacy")}, routes=(route("theirs", Match(path="/x"), "orders"),)
    )
    assert places([route("ours", Match(path="/y"), "legacy")], beside=beside) == []
    [finding] = check_document([], {}, beside=beside)
    assert '"theirs"' in finding.reason
    assert '"orders"' in finding.reason


def test_a_split_names_each_cluster_once() -> None:
    assert places([route("a", Match(path="/"), "orders", "orders")]) == ["routes[0].to[1].cluster"]


def test_exceptions_stand_below_the_prefix_that_they_except_from() -> None:
    assert places([route("a", Match(path_prefix="/a", except_prefixes=("/a/b", "/ab", "/b")))]) == [
        "routes[0].match.except_prefixes[1]",
        "routes[0].match.except_prefixes[2]",
    ]
    assert places([route("a", Match(path="/a", except_prefixes=("/a/b",)))]) == ["routes[0].match.except_prefixes"]


def test_names_of_the_mesh_itself_cannot_be_taken() -> None:
    assert places([route("auto:orders", Match(path="/a"))]) == ["routes[0].name"]
    assert places([route("toska:docs", Match(path="/a"))]) == ["routes[0].name"]
    assert places([], {"toska-router": Cluster(service="orders")}) == ["clusters.toska-router"]


def test_a_cloud_s_metadata_address_is_refused_as_an_endpoint() -> None:
    cluster = Cluster(endpoints=(Endpoint(address="127.0.0.1", port=80), Endpoint(address="169.254.169.254", port=80)))
    assert places([], {"a": cluster}) == ["clusters.a.endpoints[1].address"]


def test_a_route_that_could_not_be_read_keeps_its_place() -> None:
    assert places([None, route("a", Match(path="/"), "lost")]) == ["routes[1].to[0].cluster"]

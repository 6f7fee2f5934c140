"""The words of matches, splits and failover: what they mean, and what is refused with which reason."""

import json
from itertools import pairwise
from typing import Any

import pytest
from toska_common.contracts.routing import Route, RoutingDocument
from toska_common.path_templates import InvalidTemplate, PathTemplate
from toska_common.regexes import Regex
from toska_common.routing.document import InvalidDocument, load_document
from toska_common.routing.order import order_routes, why_before
from toska_common.routing.versions import content_version, resource_version

HERE = {"endpoints": [{"address": "127.0.0.1", "port": 1}]}
CLUSTERS: dict[str, Any] = {"a": HERE, "b": HERE, "far": HERE}


def read(*routes: dict[str, Any], **clusters: Any) -> RoutingDocument:
    """A document of routes, with names and a cluster where they have none."""
    named = [
        {"name": f"r{number}", **({} if one.keys() & {"redirect", "respond"} else {"to": "a"}), **one}
        for number, one in enumerate(routes)
    ]
    document = {"clusters": CLUSTERS | clusters, "routes": named}
    return load_document(json.dumps(document), source="test")


def problem_of(*routes: dict[str, Any], **clusters: Any) -> str:
    with pytest.raises(InvalidDocument) as found:
        read(*routes, **clusters)
    return "; ".join(str(problem) for problem in found.value.problems)


def matching(**match: Any) -> dict[str, Any]:
    return {"match": {"path_prefix": "/"} | match}


def test_a_value_that_is_written_as_a_string_is_given_back_as_one() -> None:
    headers = {"x-a": "1", "x-b": {"prefix": "eu-"}, "x-c": {"exact": "1", "invert": True}, "x-d": {"exact": "2"}}
    [route] = read(matching(headers=headers, cookies={"c": "1"}, query={"q": {"present": False}})).routes
    assert route.match.model_dump(mode="json", exclude_defaults=True) == {
        "path_prefix": "/",
        "headers": headers | {"x-d": "2"},
        "cookies": {"c": "1"},
        "query": {"q": {"present": False}},
    }
    assert Route.model_validate_json(route.model_dump_json()) == route


def test_routes_that_use_none_of_the_new_words_keep_their_versions() -> None:
    [route] = read({"name": "orders", **matching(headers={"x-beta": "1"}, query={"v": "2"})}).routes
    match = {"path_prefix": "/", "headers": {"x-beta": "1"}, "query": {"v": "2"}}
    assert resource_version(route) == content_version({"name": "orders", "match": match, "to": [{"cluster": "a"}]})


WRONG_MATCHES: list[tuple[dict[str, Any], str]] = [
    ({"headers": {"x-a": {}}}, "give one of exact, prefix, suffix, contains, regex and present"),
    ({"headers": {"x-a": {"prefix": "a", "suffix": "b"}}}, "give one of exact"),
    ({"headers": {"x-a": {"present": True, "invert": True}}}, "write present: false instead of invert"),
    ({"headers": {"x-a": {"prefix": ""}}}, "headers.x-a.prefix: string should have at least 1 character"),
    ({"headers": {"x-a": {"regex": "(?=a)"}}}, "headers.x-a.regex: no regular expression of RE2"),
    ({"headers": {"x-a": {"contains": "a\nb"}}}, "no header has such a value"),
    ({"headers": {"x-a": {"exakt": "1"}}}, 'unknown key (did you mean "exact"?)'),
    ({"headers": {"x-a": 1}}, "headers.x-a: is a string: write it in quotes, as '1'"),
    ({"cookies": {"a b": "1"}}, 'cookies["a b"]: as a name'),
    ({"client_ip": ["10.0.0.1/8"]}, "client_ip[0]"),
    ({"client_ip": ["here"]}, "client_ip[0]"),
    ({"path_prefix": None, "path_template": "/users"}, "without a variable such as {id} it is a path"),
    ({"path_prefix": None, "path_template": "/{a}/{a}"}, "the variable a stands twice"),
    ({"path_prefix": None, "path_template": "/{a=**}/b"}, "a variable of all that is left stands at the end"),
    ({"path_prefix": None, "path_template": "/v{a}"}, "a variable is a whole segment"),
    ({"path_prefix": None, "path_template": "/{a}/../b"}, "write the decoded, normal form of the path"),
    ({"path_prefix": None, "path_template": "{a}"}, "a path starts with /"),
    ({"path_template": "/{a}"}, "give one of path, path_prefix, path_template and path_regex"),
]


@pytest.mark.parametrize(("match", "reason"), WRONG_MATCHES)
def test_a_match_that_cannot_be_meant_is_refused(match: dict[str, Any], reason: str) -> None:
    assert reason in problem_of(matching(**match))


AUTH = {"jwt": {"issuer": "i", "audience": "a", "jwks_url": "https://a.example/k"}}
WRONG_ROUTES: list[tuple[dict[str, Any], str]] = [
    ({"priority": 1001}, "priority"),
    ({"to": [{"cluster": "a", "when": {}}, {"cluster": "b"}]}, "when needs headers, cookies, query or client_ip"),
    (
        {"to": [{"cluster": "a", "weight": 2, "when": {"cookies": {"c": "1"}}}, {"cluster": "b"}]},
        "either weight or when",
    ),
    ({"to": [{"cluster": "a", "when": {"cookies": {"c": "1"}}}]}, "one part of to has no when"),
    ({"to": [{"cluster": "a", "when": {"path": "/"}}, {"cluster": "b"}]}, "to[0].when.path: unknown key"),
    ({"to": [{"cluster": "x", "when": {"cookies": {"c": "1"}}}, {"cluster": "b"}]}, 'there is no cluster "x"'),
    ({"to": [{"cluster": "a"}, {"cluster": "a", "weight": 2}]}, "stands twice in this split"),
    ({"sticky": {}}, "give one of set_cookie, header, cookie, claim and client_ip: true"),
    ({"sticky": {"header": "x", "cookie": "y"}}, "give one of set_cookie"),
    ({"sticky": {"client_ip": False}}, "give one of set_cookie"),
    ({"sticky": {"header": "x", "ttl": "1h"}}, "ttl and secure go with set_cookie"),
    ({"sticky": {"set_cookie": "x", "ttl": "500d"}}, "as long as browsers keep a cookie"),
    ({"sticky": {"claim": "sub"}}, "without it no token is verified"),
    ({"sticky": {"header": "x"}, "respond": {"body": "x"}}, "sticky is for routes with to"),
    (
        {"match": {"path_template": "/{a}"}, "policies": {"rewrite": {"replacement": "/x/{b}"}}},
        "there is no {b} in path_template; known here: {a}",
    ),
    (
        {"match": {"path_template": "/{a}"}, "redirect": {"to": "https://{a}.example/"}},
        "a host is not made of what a client sent",
    ),
]


@pytest.mark.parametrize(("route", "reason"), WRONG_ROUTES)
def test_a_route_that_cannot_be_served_is_refused(route: dict[str, Any], reason: str) -> None:
    assert reason in problem_of(matching() | route)


def test_a_cluster_may_take_several_conditions_and_a_share_of_the_rest() -> None:
    whens = [{"cluster": "b", "when": {"headers": {"x": value}}} for value in ("1", "2")]
    [route] = read({**matching(), "to": [*whens, {"cluster": "a"}, {"cluster": "b"}]}).routes
    assert [name for _, name in route.named_clusters()] == ["b", "b", "a", "b"]
    read({**matching(), "sticky": {"claim": "sub"}, "policies": {"auth": AUTH}})


WRONG_FAILOVERS: list[tuple[dict[str, Any], str]] = [
    ({"to": []}, "clusters.a.failover.to"),
    ({"to": "a"}, "clusters.a.failover.to: it is the cluster itself"),
    ({"to": ["b", "fat"]}, 'clusters.a.failover.to[1]: there is no cluster "fat" (did you mean "far"?)'),
    ({"to": ["b", "b"]}, "each cluster stands there once"),
    ({"to": "b", "below_percent": 0}, "failover.below_percent"),
    ({"to": "b", "min_endpoints": 0}, "failover.min_endpoints"),
]


@pytest.mark.parametrize(("failover", "reason"), WRONG_FAILOVERS)
def test_a_failover_that_leads_nowhere_is_refused(failover: dict[str, Any], reason: str) -> None:
    assert reason in problem_of(matching(), a={**HERE, "failover": failover})


def test_a_number_of_endpoints_in_the_zone_needs_the_zone() -> None:
    assert "goes with zone" in problem_of(matching(), a={**HERE, "zone_min_endpoints": 2})


def test_a_cluster_that_another_source_fails_over_to_cannot_be_missing() -> None:
    beside = read(matching(), a={**HERE, "failover": {"to": "b"}})
    kept = {name: cluster for name, cluster in beside.clusters.items() if name != "b"}
    with pytest.raises(InvalidDocument) as found:
        load_document("{routes: []}", source="test", beside=beside.model_copy(update={"clusters": kept}))
    assert 'the cluster "a" of another source fails over to "b"' in str(found.value)


def test_templates_that_differ_in_the_names_of_variables_alone_are_in_each_others_way() -> None:
    same = [{"match": {"path_template": f"/users/{{{name}}}/x"}} for name in ("id", "user")]
    assert "match the same requests" in problem_of(*same)


@pytest.mark.parametrize(
    ("template", "takes", "leaves"),
    [
        ("/users/{id}", ["/users/1", "/users/a.b", "/users/é"], ["/users", "/users/", "/users/1/", "/users/1/x"]),
        ("/{a}.x/{b}", [], []),
        ("/a/{rest=**}", ["/a/", "/a/b", "/a/b/c/"], ["/a", "/ab", "/b/a/"]),
        ("/(x)/{a}/", ["/(x)/1/"], ["/x/1/", "/(x)/1"]),
    ],
)
def test_a_template_is_an_expression_with_named_groups(template: str, takes: list[str], leaves: list[str]) -> None:
    if not takes:
        with pytest.raises(InvalidTemplate, match="whole segment"):
            PathTemplate(template)
        return
    read = PathTemplate(template)
    for fits in (Regex(read.regex).fits, read.fits):
        assert all(fits(path.encode()) for path in takes)
        assert not any(fits(path.encode()) for path in (*leaves, "*"))


ORDER: list[tuple[dict[str, Any], str]] = [
    ({"match": {"path_prefix": "/"}, "priority": 1}, "its priority is 1, not 0"),
    ({"match": {"path_prefix": "/", "host": "a.example"}}, "the host a.example goes before the host *.example"),
    ({"match": {"path": "/x", "host": "*.example"}}, "the host *.example goes before no host"),
    ({"match": {"path": "/a/b"}}, "an exact path goes before a template"),
    ({"match": {"path_template": "/a/{x}"}}, "it writes out a segment that is a variable here"),
    ({"match": {"path_template": "/{x}/{y}"}}, "it writes out a segment that is a variable here"),
    ({"match": {"path_template": "/{x}/{rest=**}"}}, "a template goes before an expression"),
    ({"match": {"path_regex": "/a/.*"}}, "an expression goes before a prefix"),
    ({"match": {"path_prefix": "/a/b"}}, "its prefix is longer"),
    ({"match": {"path_prefix": "/a", "cookies": {"c": "1"}, "client_ip": ["10.0.0.0/8"]}},
     "it has more conditions besides host and path: 2, not 1"),
    ({"match": {"path_prefix": "/a", "headers": {"x": "1"}}}, "fewer of its values are looser than exact ones"),
    ({"match": {"path_prefix": "/a", "headers": {"x": {"prefix": "1"}}}}, "it was written first"),
    ({"match": {"path_prefix": "/a", "headers": {"x": {"exact": "1", "invert": True}}}},
     "it has more conditions besides host and path: 1, not 0"),
    ({"match": {"path_prefix": "/a"}}, ""),
]  # fmt: skip


def test_each_rule_of_precedence_is_told_by_its_name() -> None:
    routes = read(*(one for one, _ in ORDER)).routes
    # Back to front, but for the two whose place only the order of writing decides.
    shuffled = [*reversed(routes)]
    shuffled[1 + 1], shuffled[1] = shuffled[1], shuffled[1 + 1]
    found = order_routes(shuffled)
    assert [route.name for route in found] == [route.name for route in routes]
    reasons = [why_before(first, second) for first, second in pairwise(found)]
    assert reasons == [reason for _, reason in ORDER[:-1]]

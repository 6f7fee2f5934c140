"""Reading routing documents: every problem is named, with its path and its line."""

import pytest
from toska_common.contracts.routing import Cluster, Policies, Route, ValueMatch
from toska_common.routing.document import InvalidDocument, load_document, load_resource

SHOP = """\
server:
  trusted_proxies: [10.0.0.0/8]
clusters:
  orders: {service: orders}
  legacy:
    endpoints: [{address: 127.0.0.1, port: 9001, weight: 3}, {address: 127.0.0.1, port: 9002}]
routes:
  - name: orders
    match: {host: shop.example, path_prefix: /orders, methods: [GET, POST], headers: {X-Beta: "1"}}
    to: [{cluster: orders, weight: 90}, {cluster: legacy, weight: 10}]
    policies: {timeout: 5s, upgrade: [websocket]}
  - {name: rest, match: {path_prefix: /}, to: legacy}
  - {name: old, match: {path: /old}, redirect: {to: /new}}
"""


def problems_of(text: str | bytes, *, registry: bool = True) -> list[tuple[str, int | None, str]]:
    with pytest.raises(InvalidDocument) as caught:
        load_document(text, source="mesh.yaml", registry=registry)
    return [(problem.path, problem.line, problem.reason) for problem in caught.value.problems]


def test_a_right_document_is_read_with_its_shorthands() -> None:
    document = load_document(SHOP, source="mesh.yaml")
    assert [route.name for route in document.routes] == ["orders", "rest", "old"]
    assert document.routes[0].match.headers == {"x-beta": ValueMatch(exact="1")}
    assert [part.cluster for part in document.routes[1].to] == ["legacy"]
    assert document.clusters["legacy"].endpoints[0].weight == 3


def test_every_problem_is_named_with_path_and_line_in_one_run() -> None:
    text = """\
server:
  limit: {}
clusters:
  orders: {service: orders, balancr: random}
  legacy: {endpoints: [{address: 127.0.0.1, port: "80"}]}
routes:
  - name: a
    match: {path_prefix: /a, method: [GET]}
    to: orders
  - name: b
    match: {path_prefix: /b, headers: {x-beta: 1}}
    to: orders
  - {name: c, match: {path: /c}, to: ordrs}
  - name: c
    match: {path: /c2}
    to: orders
    policies: {timeout: 5}
  - {name: d, match: {path: /c}, to: orders}
  - {match: {path: /e}, to: {}}
"""
    found = problems_of(text)
    assert [(path, line) for path, line, _ in found] == [
        ("server.limit", 2),
        ("clusters.orders.balancr", 4),
        ("clusters.legacy.endpoints[0].port", 5),
        ("routes[0].match.method", 8),
        ("routes[1].match.headers.x-beta", 11),
        ("routes[2].to", 13),
        ("routes[3].policies.timeout", 17),
        ("routes[4].match", 18),
        ("routes[5].name", 19),
        ("routes[5].to", 19),
    ]


def test_an_unknown_key_comes_with_the_one_that_was_meant() -> None:
    [(path, line, reason)] = problems_of(
        "routes:\n- {name: a, match: {path: /}, to: x, polices: {}}\nclusters: {x: {service: x}}"
    )
    assert (path, line) == ("routes[0].polices", 2)
    assert 'did you mean "policies"?' in reason


def test_an_unknown_key_that_is_like_nothing_comes_with_the_known_ones() -> None:
    [(_, _, reason)] = problems_of("zebra: 1")
    assert "clusters, policies, routes, server" in reason


def test_an_unknown_cluster_comes_with_the_one_that_was_meant() -> None:
    [(path, _, reason)] = problems_of(
        "clusters: {orders: {service: orders}}\nroutes: [{name: a, match: {path: /}, to: order}]"
    )
    assert path == "routes[0].to"
    assert 'did you mean "orders"?' in reason


def test_a_key_that_stands_twice_does_not_hide_other_problems() -> None:
    assert problems_of("routes: []\nclusters: {}\nroutes: []\nrouts: []") == [
        ("routes", 3, "stands twice; the first is on line 1"),
        ("routs", 4, 'unknown key (did you mean "routes"?)'),
    ]


def test_words_that_yaml_1_1_took_for_booleans_are_strings() -> None:
    text = "clusters: {on: {service: no}}\nroutes: [{name: yes, match: {path: /, headers: {off: on}}, to: on}]"
    document = load_document(text, source="mesh.yaml")
    assert document.routes[0].name == "yes"
    assert document.routes[0].match.headers == {"off": ValueMatch(exact="on")}
    assert document.clusters["on"].service == "no"


def test_a_boolean_is_not_taken_for_a_number() -> None:
    [(path, _, _)] = problems_of("clusters: {a: {endpoints: [{address: 127.0.0.1, port: true}]}}")
    assert path == "clusters.a.endpoints[0].port"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("- routes", 1, "a mapping"),
        ("routes: [\n", 2, "not YAML"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("routes: []\n---\nroutes: []", 2, "more than one document"),
        (b"routes: []\n# \xff", 2, "not UTF-8"),
        ("routes: []\n# \x07", 2, "not allowed"),
        ("routes: *lost", 1, "anchor"),
        ("routes: &self [*self]", 1, "anchor"),
        ("? [a]\n: b", 1, "a key is a string"),
        ("routes: !!python/name:os.system x", 1, "the tag"),
        ("clusters:\n  a: &a {service: a}\n  b: {<<: *a}", 3, "merge keys"),
        ("a: " + "[" * 100_000, 1, "deep"),
    ],
)
def test_what_is_not_one_readable_document_is_refused_in_words(text: str | bytes, line: int, words: str) -> None:
    assert any(found == line and words in reason for _, found, reason in problems_of(text))


def test_aliases_share_what_they_name() -> None:
    text = """\
clusters: {orders: {service: orders}}
routes:
  - {name: a, match: {path: /a}, to: orders, policies: &slow {timeout: 60s}}
  - {name: b, match: {path: /b}, to: orders, policies: *slow}
"""
    first, second = load_document(text, source="mesh.yaml").routes
    assert first.policies == second.policies


def test_a_document_that_explodes_by_its_aliases_is_refused_before_it_does() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 30)]
    [(_, line, reason)] = problems_of("\n".join(lines))
    assert line == 6
    assert "aliases" in reason


def test_problems_of_the_error_are_members_of_its_problem_document() -> None:
    with pytest.raises(InvalidDocument) as caught:
        load_document("routes: 1", source="mesh.yaml")
    assert caught.value.extensions == {"problems": [{"field": "routes", "reason": "is a list", "line": 1}]}
    assert str(caught.value) == "mesh.yaml: line 1: routes: is a list"


def test_a_cluster_that_follows_a_registry_is_refused_where_there_is_none() -> None:
    [(path, line, _)] = problems_of("clusters:\n  a: {service: a}", registry=False)
    assert (path, line) == ("clusters.a.service", 2)


def test_one_resource_is_read_from_json_or_yaml() -> None:
    by_json = load_resource(Route, '{"name": "a", "match": {"path": "/"}, "to": "b"}', source="body")
    by_yaml = load_resource(Route, "name: a\nmatch: {path: /}\nto: b", source="body", yaml=True)
    assert by_json == by_yaml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"service": "a", "service": "b"}', "stands twice"),
        ("{" + "".join(f'"k{n}": 1, ' for n in range(20_000)) + '"k19999": 2}', "'k19999' stands twice"),
        ("{" + ", ".join(f'"k{n}": 1' for n in range(1_500)) + "}", "there are 500 problems more"),
        ('{"service": NaN}', "NaN"),
        ("[]", "a mapping"),
        ('{"service": ', "not JSON"),
        ("[" * 100_000, "deep"),
        ('{"service": "\\ud800"}', "service"),
        ('{"service": "a", "keep_alive": "99999999999999999d"}', "longer than 36500 days"),
        ('{"service": "a", "keep_alive": "' + "9" * 400 + 's"}', "longer than 36500 days"),
        ('{"service": "a", "endpoint": []}', 'did you mean "endpoints"?'),
    ],
)
def test_a_resource_that_is_wrong_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidDocument, match=".*" + words.replace("?", r"\?")):
        load_resource(Cluster, text, source="body")


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ('{"body": {"max_bytes": "999999999GiB"}}', "larger than 1125899906842624 bytes"),
        ('{"body": {"max_bytes": 1' + "0" * 40 + "}}", "larger than 1125899906842624 bytes"),
    ],
)
def test_a_size_that_nothing_has_is_refused(policies: str, words: str) -> None:
    with pytest.raises(InvalidDocument, match=words):
        load_resource(Policies, policies, source="body")


def test_a_resource_has_no_more_values_than_anybody_needs() -> None:
    with pytest.raises(InvalidDocument, match="more than 100000 values"):
        load_resource(Cluster, "endpoints: [" + "x, " * 100_001 + "]", source="body", yaml=True)


@pytest.mark.parametrize(
    "address", ["2852039166", "0xa9fea9fe", "169.254.43518", "169.254.169.254.", "10.0.0", "app.1", ":::", "1.2.3.4.5"]
)
def test_what_resolvers_would_take_for_another_address_is_none(address: str) -> None:
    with pytest.raises(InvalidDocument, match="does not end in a number"):
        load_resource(Cluster, f'{{"endpoints": [{{"address": "{address}", "port": 80}}]}}', source="body")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("balancer: maglev", "maglev needs hash_key"),
        ("hash_key: {path: true}", "least_request does not go by a key"),
        ("balancer: ring_hash, hash_key: {path: true, header: x-a}", "give one of header, cookie, query"),
        ("balancer: ring_hash, hash_key: {}", "give one of header, cookie, query"),
        ("balancer: fastest", "round_robin"),
        ('affinity: {cookie: "a b"}', "does not match"),
        ("panic_percent: 101", "100"),
    ],
)
def test_a_balancer_that_cannot_work_is_refused_in_words(settings: str, words: str) -> None:
    text = f"clusters: {{a: {{endpoints: [{{address: 127.0.0.1, port: 1}}], {settings}}}}}"
    assert any(words in reason for _, _, reason in problems_of(text))
